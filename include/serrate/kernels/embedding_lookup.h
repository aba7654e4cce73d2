#pragma once

#include <cstdint>
#include <span>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// Sum pooling of the rows of one table shard for a run of bags. Mean pooling is a scale of the
/// sum that only the owner of the whole bag knows; see scatter_bags.
struct LookupSegment {
  InputMatrix table;                       ///< [num_rows, dim]
  DeviceSpan<const std::int64_t> indices;  ///< [num_indices], in [0, num_rows)
  DeviceSpan<const std::int64_t> offsets;  ///< [num_bags + 1]; bag i: offsets[i] - offsets[0] ...
  DeviceSpan<const float> weights;         ///< [num_indices], or empty
  DeviceMatrix<float> output;              ///< [num_bags, dim]; empty bags become 0
};

/// output[b] = sum over the bag of weight * table[index], for every segment in one launch
/// (FBGEMM's table-batched embedding), whatever types their tables have. The sum is in fp32, in
/// index order.
void embedding_lookup(std::span<const LookupSegment> segments, const Stream& stream);

template <DeviceType D>
void embedding_lookup_on(std::span<const LookupSegment> segments, const Stream& stream);

}  // namespace serrate
