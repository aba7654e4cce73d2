#pragma once

#include <cuda_runtime.h>

namespace serrate {

/// rcp.approx.ftz (PTX ISA 9.1, 9.7.3.13): 1 / x by one instruction, within one unit of the last
/// place; subnormal x and results are 0. (A division takes some ten, and branches.)
/// tests/support/simt has a header of the same path for the simulated device.
__device__ inline float reciprocal_flushed(float x) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace serrate
