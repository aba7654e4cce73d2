#pragma once

#include "serrate/stream.h"

namespace serrate {

/// Makes a CUDA device the thread's current one, which it has to be for launches and allocations,
/// and puts back what was there. dispatch_device does this for all backends.
class CudaDeviceScope {
 public:
  explicit CudaDeviceScope(Device device);
  ~CudaDeviceScope();
  CudaDeviceScope(const CudaDeviceScope&) = delete;
  CudaDeviceScope& operator=(const CudaDeviceScope&) = delete;

 private:
  int device_;
  int previous_ = 0;
};

}  // namespace serrate
