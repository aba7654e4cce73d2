#pragma once

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// Throws Error when a CUDA call failed, with its name and place.
inline void cuda_check(cudaError_t status,
                       const std::source_location& where = std::source_location::current()) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report this error again
  fail_check(
      std::string("CUDA: ") + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) + ")",
      where);
}

inline cudaStream_t cuda_stream(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

}  // namespace serrate
