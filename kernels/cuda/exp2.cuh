#pragma once

#include <cuda_runtime.h>

namespace serrate {

/// ex2.approx.ftz (PTX ISA 9.1, 9.7.3.21): 2^x by one instruction, with a relative error of 2^-22;
/// below 2^-126 it is 0. (exp2f spends three more on what is there.) tests/support/simt has a
/// header of the same path for the simulated device.
__device__ inline float exp2_flushed(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace serrate
