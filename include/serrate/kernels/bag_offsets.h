#pragma once

#include <cstdint>
#include <span>

#include "serrate/stream.h"

namespace serrate {

/// offsets[0] = 0, offsets[i + 1] = offsets[i] + lengths[i]; offsets is one longer than lengths.
void offsets_from_lengths(std::span<const std::int64_t> lengths, std::span<std::int64_t> offsets,
                          const Stream& stream);
/// scales[i] = 1 / (offsets[i + 1] - offsets[i]): what makes a mean of a sum; 0 for an empty bag.
void mean_scales(std::span<const std::int64_t> offsets, std::span<float> scales,
                 const Stream& stream);
/// bags[i] = the bag of id i, where bag b has the ids from offsets[b] - offsets[0] on.
void bags_of_ids(std::span<const std::int64_t> offsets, std::span<std::int64_t> bags,
                 const Stream& stream);

template <DeviceType D>
void offsets_from_lengths_on(std::span<const std::int64_t>, std::span<std::int64_t>, const Stream&);
template <DeviceType D>
void mean_scales_on(std::span<const std::int64_t>, std::span<float>, const Stream&);
template <DeviceType D>
void bags_of_ids_on(std::span<const std::int64_t>, std::span<std::int64_t>, const Stream&);

}  // namespace serrate
