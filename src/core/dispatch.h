#pragma once

#include <type_traits>
#include <utility>

#include "serrate/error.h"
#include "serrate/stream.h"
#if SERRATE_WITH_CUDA
#include "src/core/cuda_device_scope.h"
#endif

namespace serrate {

[[noreturn]] void throw_no_backend(Device device);

/// Calls f with the device's type as a std::integral_constant, the device being the thread's
/// current one meanwhile: the one place where a backend is chosen, and where a build without CUDA
/// says so.
template <typename F>
decltype(auto) dispatch_device(Device device, F&& f) {
  if (device.type == DeviceType::kCpu) {
    return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCpu>{});
  }
#if SERRATE_WITH_CUDA
  const CudaDeviceScope scope(device);
  return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCuda>{});
#else
  throw_no_backend(device);
#endif
}

/// The same for calls that free things, which do not depend on the current device: they may come
/// at the end of a program, when the driver is gone, and do not throw.
template <typename F>
void dispatch_release(Device device, F&& f) noexcept {
  if (device.type == DeviceType::kCpu) {
    return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCpu>{});
  }
#if SERRATE_WITH_CUDA
  std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCuda>{});
#endif
}

}  // namespace serrate
