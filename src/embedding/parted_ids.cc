#include "src/embedding/parted_ids.h"

#include <utility>

namespace serrate {

BucketSizes PartedIds::part(std::span<const BucketizeSegment> segments, OutsideIds outside,
                            const Stream& stream) {
  bucketize(segments, outside, arrays_, stream);
  BucketSizes sizes = sizes_on_host(arrays_, stream);
  bag_splits_ = std::move(sizes.bag_splits);
  id_splits_ = std::move(sizes.id_splits);
  return sizes;
}

void PartedIds::part(std::span<const BucketizeSegment> segments, std::span<const BagCounts> counts,
                     const Stream& stream) {
  bucketize(segments, OutsideIds::kLeaveOut, arrays_, stream);
  bag_splits_ = id_splits_ = {0};
  for (const BagCounts& block : counts) {
    bag_splits_.push_back(bag_splits_.back() + block.num_bags);
    id_splits_.push_back(id_splits_.back() + block.num_ids);
  }
}

BagCounts PartedIds::count(std::int64_t block) const {
  return {bag_splits_[block + 1] - bag_splits_[block], id_splits_[block + 1] - id_splits_[block]};
}

DeviceSpan<const std::int64_t> PartedIds::bag_index(std::int64_t block) const {
  return arrays_.bag_index.span().subspan(bag_splits_[block], count(block).num_bags);
}

DeviceSpan<const std::int64_t> PartedIds::offsets(std::int64_t block) const {
  return arrays_.offsets.span().subspan(bag_splits_[block], count(block).num_bags + 1);
}

DeviceSpan<const std::int64_t> PartedIds::ids(std::int64_t block) const {
  return arrays_.ids.span().subspan(id_splits_[block], count(block).num_ids);
}

DeviceSpan<const float> PartedIds::weights(std::int64_t block) const {
  if (arrays_.weights.size() == 0) return {};
  return arrays_.weights.span().subspan(id_splits_[block], count(block).num_ids);
}

}  // namespace serrate
