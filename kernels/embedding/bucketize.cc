#include "serrate/kernels/bucketize.h"

#include <algorithm>

#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_segment(const BucketizeSegment& s) {
  check(!s.bags.offsets.empty(), "offsets must be [num_bags + 1]");
  check(s.bags.num_bags() > 0 || s.bags.values.empty(), "without bags there are no values");
  check(s.bags.weights.empty() || s.bags.weights.size() == s.bags.values.size(),
        "weights must be empty or as many as values");
  check(s.row_splits.size() >= 2 && s.row_splits[0] == 0 && std::ranges::is_sorted(s.row_splits),
        "row_splits must rise from 0 to the number of rows");
}

}  // namespace

std::int64_t BucketizedIds::bytes() const {
  return sizes.bytes() + bag_index.bytes() + offsets.bytes() + ids.bytes() + weights.bytes();
}

void bucketize(std::span<const BucketizeSegment> segments, OutsideIds outside,
               BucketizedIds& result, const Stream& stream) {
  std::int64_t most_bags = 0, most_ids = 0;
  bool weighted = false, unweighted = false;
  result.num_segments = std::ssize(segments);
  result.num_blocks = 0;
  for (const BucketizeSegment& s : segments) {
    check_segment(s);
    const std::int64_t num_blocks = std::ssize(s.row_splits) - 1, num_ids = s.bags.num_values();
    result.num_blocks += num_blocks;
    most_bags += std::min(num_ids, s.bags.num_bags() * num_blocks);
    most_ids += num_ids;
    if (num_ids > 0) (s.bags.weights.empty() ? unweighted : weighted) = true;
  }
  check(!(weighted && unweighted), "either all segments have weights or none");
  result.sizes.resize_discard(2 * (result.num_blocks + 1) + 2 * result.num_segments, stream);
  result.bag_index.resize_discard(most_bags, stream);
  result.offsets.resize_discard(most_bags + 1, stream);
  result.ids.resize_discard(most_ids, stream);
  result.weights.resize_discard(weighted ? most_ids : 0, stream);
  dispatch_device(stream.device(),
                  [&](auto device) { bucketize_on<device()>(segments, outside, result, stream); });
}

BucketSizes sizes_on_host(BucketizedIds& ids, const Stream& stream) {
  const std::span<const std::int64_t> all =
      ids.host_sizes.resize_discard(ids.sizes.size(), stream.device());
  copy_async<std::int64_t>(ids.sizes.span(), ids.host_sizes, 0, stream);
  stream.synchronize();
  auto next = all.begin();
  const auto take = [&](std::int64_t count) {
    const auto begin = next;
    next += count;
    return std::vector<std::int64_t>(begin, next);
  };
  const std::int64_t num_splits = ids.num_blocks + 1;
  return {.bag_splits = take(num_splits),
          .id_splits = take(num_splits),
          .num_outside = take(ids.num_segments),
          .first_outside = take(ids.num_segments)};
}

}  // namespace serrate
