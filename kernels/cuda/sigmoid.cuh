#pragma once

#include <numbers>

#include "kernels/cuda/exp2.cuh"
#include "kernels/cuda/reciprocal.cuh"

namespace serrate {

/// 1 / (1 + e^-x) in four instructions. In units of 2^-24 it is off by (5 + 1.3 |x|) e^-x / (1 +
/// e^-x) + 3 of itself at most, which is 2^-19 at -20 and 2^-17 at -87: the sum's rounding is one
/// unit of the 3, the reciprocal two. Below -87.3 it is 0, as the reciprocal of more than 2^126 is.
__device__ inline float approximate_sigmoid(float x) {
  return reciprocal_flushed(1 + exp2_flushed(-std::numbers::log2e_v<float> * x));
}

}  // namespace serrate
