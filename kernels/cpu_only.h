#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// dispatch_device for an op whose CUDA twin is not written yet: the one place that says so. The
/// op's own file changes to dispatch_device when it is.
template <typename F>
decltype(auto) dispatch_cpu_only(Device device, std::string_view op, F&& f) {
  if (device.type != DeviceType::kCpu) {
    throw Error("op " + std::string(op) + " has no " + to_string(device) +
                " backend in this version; use a cpu stream");
  }
  return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCpu>{});
}

}  // namespace serrate
