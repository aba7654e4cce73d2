#pragma once

#include <cstdint>
#include <span>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// What makes a mean of the sum of a bag: 1 over the number of its ids, 0 for an empty one.
struct MeanScales {
  DeviceSpan<const std::int64_t> offsets;  ///< [num_bags + 1]
  DeviceSpan<float> scales;                ///< [num_bags], the result
  /// [num_ids], where those outside [0, num_rows) do not count; empty where all do.
  DeviceSpan<const std::int64_t> ids = {};
  std::int64_t num_rows = 0;
};

/// bags[i] = the bag of id i, where bag b has the ids from offsets[b] - offsets[0] on.
struct BagsOfIds {
  DeviceSpan<const std::int64_t> offsets;  ///< [num_bags + 1]
  DeviceSpan<std::int64_t> bags;           ///< [num_ids], the result
};

void mean_scales(std::span<const MeanScales> segments, const Stream& stream);
void bags_of_ids(std::span<const BagsOfIds> segments, const Stream& stream);

template <DeviceType D>
void mean_scales_on(std::span<const MeanScales>, const Stream&);
template <DeviceType D>
void bags_of_ids_on(std::span<const BagsOfIds>, const Stream&);

}  // namespace serrate
