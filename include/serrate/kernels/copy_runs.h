#pragma once

#include <cstdint>
#include <span>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// A copy of values to another place on the same device.
template <typename T>
struct CopyRun {
  DeviceSpan<const T> from;
  DeviceSpan<T> to;  ///< as long as `from`, apart from all that is copied from
};

/// All runs in one launch. T is std::int64_t or float.
template <typename T>
void copy_runs(std::span<const CopyRun<T>> runs, const Stream& stream);

template <DeviceType D, typename T>
void copy_runs_on(std::span<const CopyRun<T>> runs, const Stream& stream);

}  // namespace serrate
