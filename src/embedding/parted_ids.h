#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/kernels/bucketize.h"

namespace serrate {

/// So many bags with so many ids.
struct BagCounts {
  std::int64_t num_bags = 0;
  std::int64_t num_ids = 0;
};

/// The ids of several lookups by row block, and on the host where each block's are.
class PartedIds {
 public:
  /// Parts the ids and waits for how many are where.
  BucketSizes part(std::span<const BucketizeSegment> segments, OutsideIds outside,
                   const Stream& stream);
  /// Parts ids that are all in range, of whose blocks the counts are known.
  void part(std::span<const BucketizeSegment> segments, std::span<const BagCounts> counts,
            const Stream& stream);

  BagCounts count(std::int64_t block) const;
  DeviceSpan<const std::int64_t> bag_index(std::int64_t block) const;
  DeviceSpan<const std::int64_t> offsets(std::int64_t block) const;  ///< one more than bags
  DeviceSpan<const std::int64_t> ids(std::int64_t block) const;
  DeviceSpan<const float> weights(std::int64_t block) const;  ///< empty where unweighted
  std::int64_t bytes() const { return arrays_.bytes(); }

 private:
  BucketizedIds arrays_;
  std::vector<std::int64_t> bag_splits_{0}, id_splits_{0};  // [num_blocks + 1]
};

}  // namespace serrate
