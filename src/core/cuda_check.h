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

/// Kernels are launched on the thread's device, which has to be that of their stream: this sets it
/// for a scope and puts back what was there.
class CudaDeviceScope {
 public:
  explicit CudaDeviceScope(Device device) {
    cuda_check(cudaGetDevice(&previous_));
    cuda_check(cudaSetDevice(device.index));
  }
  ~CudaDeviceScope() { cudaSetDevice(previous_); }
  CudaDeviceScope(const CudaDeviceScope&) = delete;
  CudaDeviceScope& operator=(const CudaDeviceScope&) = delete;

 private:
  int previous_ = 0;
};

}  // namespace serrate
