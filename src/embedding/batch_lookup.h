#pragma once

#include <cstdint>
#include <vector>

#include "serrate/kernels/bucketize.h"
#include "serrate/kernels/invalid_ids.h"
#include "serrate/matrix_view.h"

namespace serrate {

/// One lookup of a batch, on the rank that has the bags or passes them on within its node.
struct BatchLookup {
  std::int64_t num_bags = 0;
  std::int64_t dim = 0;
  std::int64_t output_at = 0;            ///< its [num_bags, dim] in the outputs, or in those it is
                                         ///< passed on for
  ValidIds valid;                        ///< used when invalid ids were dropped or replaced
  BucketizedIds parts;                   ///< by row block
  std::vector<std::int64_t> bag_splits;  ///< [num_row_blocks + 1] into parts' bags
  std::vector<std::int64_t> id_splits;   ///< [num_row_blocks + 1] into parts' ids
  Buffer<float> mean_scales;             ///< [num_bags]; empty for sum pooling

  /// Of an unpooled lookup (see LookupRoute), whose `parts` have a bag for each id: the bags.
  std::int64_t num_ids = 0;
  std::int64_t unpooled_at = 0;      ///< its [num_ids, dim] in the unpooled rows
  Buffer<std::int64_t> bag_offsets;  ///< [num_bags + 1]
  Buffer<std::int64_t> bag_of_id;    ///< [num_ids]
  Buffer<float> id_weights;          ///< [num_ids], or empty

  MatrixView<float> matrix(Buffer<float>& outputs) const {
    return {outputs.data() + output_at, num_bags, dim};
  }
  MatrixView<float> unpooled(Buffer<float>& rows) const {
    return {rows.data() + unpooled_at, num_ids, dim};
  }
  std::int64_t bytes() const {
    const std::int64_t words = valid.values.capacity() + valid.offsets.capacity() +
                               parts.bag_index.capacity() + parts.lengths.capacity() +
                               parts.ids.capacity() + bag_offsets.capacity() + bag_of_id.capacity();
    const std::int64_t floats = valid.weights.capacity() + parts.weights.capacity() +
                                mean_scales.capacity() + id_weights.capacity();
    return words * std::int64_t{sizeof(std::int64_t)} + floats * std::int64_t{sizeof(float)};
  }
};

}  // namespace serrate
