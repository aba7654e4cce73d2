#pragma once

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// sum[i] += values[i].
void add_to(DeviceSpan<const float> values, DeviceSpan<float> sum, const Stream& stream);

}  // namespace serrate
