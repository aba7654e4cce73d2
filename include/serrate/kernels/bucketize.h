#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/jagged_tensor.h"

namespace serrate {

/// One feature's ids, parted by the row block that owns them: what the input dist sends.
/// Only bags that have an id in a block appear in it, so a row-wise table gets back at most
/// min(ids, bags x blocks) partial sums. Blocks stand one after the other in every array.
struct BucketizedIds {
  std::vector<std::int64_t> bag_counts;  ///< [num_blocks], host
  std::vector<std::int64_t> id_counts;   ///< [num_blocks], host
  Buffer<std::int64_t> bag_index;        ///< [sum bag_counts]: which bag of the feature
  Buffer<std::int64_t> lengths;          ///< [sum bag_counts]: ids of that bag in the block
  Buffer<std::int64_t> ids;              ///< [sum id_counts]: row - first row of the block
  Buffer<float> weights;                 ///< [sum id_counts], or empty
};

/// Parts `feature` by `row_splits` [num_blocks + 1], from 0 to the table's number of rows. Ids have
/// to be in range (see check_ids). Order within a block is the feature's own: stable.
void bucketize(const JaggedView& feature, std::span<const std::int64_t> row_splits,
               BucketizedIds& result, const Stream& stream);

/// The position in `values` of the first id outside [0, num_rows), or -1.
std::int64_t find_invalid_id(std::span<const std::int64_t> values, std::int64_t num_rows,
                             const Stream& stream);

template <DeviceType D>
void bucketize_on(const JaggedView&, std::span<const std::int64_t> row_splits, BucketizedIds&,
                  const Stream&);
template <DeviceType D>
std::int64_t find_invalid_id_on(std::span<const std::int64_t>, std::int64_t, const Stream&);

}  // namespace serrate
