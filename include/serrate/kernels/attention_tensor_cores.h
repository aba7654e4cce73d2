#pragma once

#include <cstdint>

namespace serrate {

/// Whether attention on CUDA has kernels on tensor cores for bfloat16 or float16 heads of so many
/// columns. With any other number it takes the plain kernels, which multiply in float32.
bool attention_has_tensor_cores(std::int64_t head_dim);

}  // namespace serrate
