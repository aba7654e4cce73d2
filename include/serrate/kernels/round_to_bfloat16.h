#pragma once

#include "serrate/bfloat16.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// rounded = values to nearest; both have the same size.
void round_to_bfloat16(DeviceSpan<const float> values, DeviceSpan<BFloat16> rounded,
                       const Stream& stream);

template <DeviceType D>
void round_to_bfloat16_on(DeviceSpan<const float>, DeviceSpan<BFloat16>, const Stream&);

}  // namespace serrate
