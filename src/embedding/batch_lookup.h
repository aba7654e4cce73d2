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

  MatrixView<float> matrix(Buffer<float>& outputs) const {
    return {outputs.data() + output_at, num_bags, dim};
  }
  std::int64_t bytes() const {
    const std::int64_t words = valid.values.capacity() + valid.offsets.capacity() +
                               parts.bag_index.capacity() + parts.lengths.capacity() +
                               parts.ids.capacity();
    const std::int64_t floats =
        valid.weights.capacity() + parts.weights.capacity() + mean_scales.capacity();
    return words * std::int64_t{sizeof(std::int64_t)} + floats * std::int64_t{sizeof(float)};
  }
};

}  // namespace serrate
