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

/// Throws unless the kernel as built for this device has code; sm_80's cubin, which sm_89 also
/// runs, and code compiled from its PTX do not.
template <typename Kernel>
void check_has_e4m3(Kernel* kernel) {
  cudaFuncAttributes attributes{};
  cuda_check(cudaFuncGetAttributes(&attributes, kernel));
  require_e4m3(attributes.ptxVersion);
}

}  // namespace serrate
