#pragma once

#include <type_traits>
#include <utility>

#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// Calls f with the device's type as a std::integral_constant: the one place where a backend is
/// chosen, and where a build without CUDA says so.
template <typename F>
decltype(auto) dispatch_device(Device device, F&& f) {
  switch (device.type) {
    case DeviceType::kCpu:
      return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCpu>{});
    case DeviceType::kCuda:
#if SERRATE_WITH_CUDA
      return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCuda>{});
#else
      break;
#endif
  }
  throw Error("no backend for " + to_string(device) +
              " (this build has none) configure with -DSERRATE_CUDA=ON");
}

}  // namespace serrate
