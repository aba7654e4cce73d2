#pragma once

#include <span>

#include "serrate/stream.h"

namespace serrate {

/// sum[i] += values[i].
void add_to(std::span<const float> values, std::span<float> sum, const Stream& stream);

template <DeviceType D>
void add_to_on(std::span<const float> values, std::span<float> sum, const Stream&);

}  // namespace serrate
