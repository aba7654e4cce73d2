#pragma once

#include <cstdint>

#include "serrate/kernels/linear.h"

namespace serrate {

/// Whether attention on CUDA has kernels on tensor cores for heads of so many columns: in kBf16 of
/// bfloat16 or float16, in kTf32 of float32. Else it takes the plain kernels, which multiply in
/// float32.
bool attention_has_tensor_cores(std::int64_t head_dim, Precision precision);

}  // namespace serrate
