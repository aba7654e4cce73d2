#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/host_buffer.h"
#include "serrate/jagged_tensor.h"

namespace serrate {

/// A feature whose ids are to be parted by the row block that owns them.
struct BucketizeSegment {
  JaggedView bags;
  /// [num_blocks + 1], on the host: from 0 to the table's number of rows.
  std::span<const std::int64_t> row_splits;
};

/// What becomes of an id outside the table.
enum class OutsideIds {
  kLeaveOut,  ///< it is in no block
  kLastRow,   ///< it stands for the table's last row
};

/// The ids of several features by row block: what the input dist sends. Only bags that have an id
/// in a block appear in it, so a row-wise table gets back at most min(ids, bags x blocks) partial
/// sums. The blocks of all segments stand one after the other in every array. How much there is,
/// only the device knows; the arrays have room for as much as there may be.
struct BucketizedIds {
  std::int64_t num_segments = 0;
  std::int64_t num_blocks = 0;          ///< of all segments
  Buffer<std::int64_t> sizes;           ///< BucketSizes, one vector after the other
  Buffer<std::int64_t> bag_index;       ///< which bag of the feature
  Buffer<std::int64_t> offsets;         ///< of those bags into ids and weights; one more at the end
  Buffer<std::int64_t> ids;             ///< row - first row of the block
  Buffer<float> weights;                ///< or empty
  HostBuffer<std::int64_t> host_sizes;  ///< for sizes_on_host

  std::int64_t bytes() const;
};

/// How much a BucketizedIds holds, on the host.
struct BucketSizes {
  std::vector<std::int64_t> bag_splits;     ///< [num_blocks + 1] into bag_index and offsets
  std::vector<std::int64_t> id_splits;      ///< [num_blocks + 1] into ids and weights
  std::vector<std::int64_t> num_outside;    ///< [num_segments]: ids outside the table
  std::vector<std::int64_t> first_outside;  ///< [num_segments]: position of the first, or -1
};

/// Order within a block is the feature's own: stable.
void bucketize(std::span<const BucketizeSegment> segments, OutsideIds outside,
               BucketizedIds& result, const Stream& stream);

/// Waits for the stream.
BucketSizes sizes_on_host(BucketizedIds& ids, const Stream& stream);

template <DeviceType D>
void bucketize_on(std::span<const BucketizeSegment>, OutsideIds, BucketizedIds&, const Stream&);

}  // namespace serrate
