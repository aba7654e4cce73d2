#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// The ops whose CUDA twin is not written yet: here it is said, and nowhere else. Who writes one
/// takes it from this list and calls dispatch_device; its tests then run on devices too.
inline constexpr std::array<std::string_view, 3> kCpuOnlyOps = {
    "BitMask",
    "jagged_attention_backward",
    "jagged_attention_forward",
};

/// The name of an op of that list; any other does not compile.
struct CpuOnlyOp {
  consteval CpuOnlyOp(const char* op) : name(op) {  // NOLINT: implicit
    if (!std::ranges::binary_search(kCpuOnlyOps, name)) throw "kCpuOnlyOps does not have this op";
  }
  std::string_view name;
};

/// dispatch_device for an op of kCpuOnlyOps.
template <typename F>
decltype(auto) dispatch_cpu_only(Device device, CpuOnlyOp op, F&& f) {
  if (device.type != DeviceType::kCpu) {
    throw Error("op " + std::string(op.name) + " has no " + to_string(device) +
                " backend in this version; use a cpu stream");
  }
  return std::forward<F>(f)(std::integral_constant<DeviceType, DeviceType::kCpu>{});
}

}  // namespace serrate
