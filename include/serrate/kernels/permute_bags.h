#pragma once

#include <cstdint>
#include <span>

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Rows that stand for bags of a lookup: row i of `rows` is for bag bag_index[i]. The `bags` of two
/// segments of a call are the same or have no value in common.
struct BagRows {
  DeviceSpan<const std::int64_t> bag_index;  ///< [num_rows], ascending
  DeviceMatrix<float> rows;                  ///< [num_rows, columns]
  DeviceMatrix<float> bags;                  ///< [num_bags, columns]: these columns of the lookup
  DeviceSpan<const float> bag_scale;         ///< [num_bags] (1 / length for mean pooling), or empty
};

/// bags[bag_index[i]] += bag_scale * rows[i], segment after segment: the owner-pooled partial sums
/// become the outputs of a lookup. The caller clears `bags` first.
void scatter_bags(std::span<const BagRows> segments, const Stream& stream);
/// rows[i] = bag_scale * bags[bag_index[i]]: the reverse, for gradients.
void gather_bags(std::span<const BagRows> segments, const Stream& stream);

template <DeviceType D>
void scatter_bags_on(std::span<const BagRows>, const Stream&);
template <DeviceType D>
void gather_bags_on(std::span<const BagRows>, const Stream&);

}  // namespace serrate
