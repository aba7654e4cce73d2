#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/attention/fp8.h"
#include "src/core/cuda_check.h"

namespace serrate {

/// Calls f(head_dim, as a constant), one that kernels of e4m3 have.
template <typename F>
void with_fp8_head_dim(std::int64_t head_dim, F&& f) {
  if (head_dim == 64) f(std::integral_constant<int, 64>());
  if (head_dim == 128) f(std::integral_constant<int, 128>());
  if (head_dim == 256) f(std::integral_constant<int, 256>());
}

/// Throws unless there is code in the kernel, as built for the device: sm_80's cubin, which devices
/// of 8.9 run too, and what is made of its PTX have none.
template <typename Kernel>
void check_has_e4m3(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, kernel));
  require_e4m3(attributes.ptxVersion);
}

}  // namespace serrate
