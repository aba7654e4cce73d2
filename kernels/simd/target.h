#pragma once

#include <string>

namespace serrate {

/// The instruction set of this processor that kernels run on, by Highway's name: "AVX2", "AVX3",
/// ... Sums over the lanes of a vector have the same bits only on the same one.
std::string simd_target();

}  // namespace serrate
