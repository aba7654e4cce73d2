#include <omp.h>

#include <algorithm>
#include <utility>

#include "kernels/jagged/split.h"
#include "serrate/kernels/bucketize.h"

namespace serrate {
namespace {

// Finds the block of a row. Blocks are mostly of the same size, so a guess is right or near.
class BlockFinder {
 public:
  explicit BlockFinder(std::span<const std::int64_t> splits)
      : splits_(splits),
        blocks_per_row_(static_cast<double>(splits.size() - 1) /
                        static_cast<double>(std::max<std::int64_t>(splits.back(), 1))) {}

  std::int64_t operator()(std::int64_t row) const {
    auto block = static_cast<std::int64_t>(static_cast<double>(row) * blocks_per_row_);
    block = std::min(block, std::ssize(splits_) - 2);
    while (row < splits_[block]) --block;
    while (row >= splits_[block + 1]) ++block;
    return block;
  }

 private:
  std::span<const std::int64_t> splits_;
  double blocks_per_row_;
};

// A segment as the CPU reads it.
struct HostSegment {
  std::span<const std::int64_t> values, offsets;
  std::span<const float> weights;
  std::span<const std::int64_t> row_splits;

  std::int64_t num_bags() const { return std::ssize(offsets) - 1; }
  std::int64_t num_blocks() const { return std::ssize(row_splits) - 1; }
  std::int64_t num_rows() const { return row_splits.back(); }
};

// The arrays of a BucketizedIds.
struct HostResult {
  std::int64_t *bag_splits, *id_splits;       // of the next block
  std::int64_t *num_outside, *first_outside;  // of the next segment
  std::span<std::int64_t> bag_index, offsets, ids;
  std::span<float> weights;
};

// The row that an id stands for, where all are in range.
struct AnyRow {
  static constexpr bool kLeavesOut = false;
  std::int64_t operator()(std::int64_t id) const { return id; }
};

// The same for any ids; -1 for one that is left out.
struct RowInRange {
  static constexpr bool kLeavesOut = true;
  std::int64_t num_rows;
  OutsideIds outside;

  bool has(std::int64_t id) const { return id >= 0 && id < num_rows; }
  std::int64_t operator()(std::int64_t id) const {
    if (has(id)) return id;
    return outside == OutsideIds::kLastRow ? num_rows - 1 : -1;
  }
};

// Bags and ids of one thread in one block: first counts, then positions to write to.
struct Cursor {
  std::int64_t bags = 0;
  std::int64_t ids = 0;
  std::int64_t last_bag = -1;
};

// Calls f(cursor of the block, bag, whether the bag is new to the block, position, row in the
// block) for each id of bags [begin, end).
template <typename RowOf, typename F>
void for_each_id(const HostSegment& segment, const RowOf& row_of, const BlockFinder& block_of,
                 std::int64_t begin, std::int64_t end, Cursor* cursors, F f) {
  for (std::int64_t bag = begin; bag < end; ++bag) {
    const std::int64_t last = segment.offsets[bag + 1] - segment.offsets[0];
    for (std::int64_t i = segment.offsets[bag] - segment.offsets[0]; i < last; ++i) {
      const std::int64_t row = row_of(segment.values[i]);
      if constexpr (RowOf::kLeavesOut) {
        if (row < 0) continue;
      }
      const std::int64_t block = block_of(row);
      Cursor& cursor = cursors[block];
      f(cursor, bag, std::exchange(cursor.last_bag, bag) != bag, i,
        row - segment.row_splits[block]);
    }
  }
}

// Turns counts into first positions, block by block and thread by thread: stable. Writes where the
// blocks end.
void place_cursors(std::span<Cursor> cursors, std::int64_t num_blocks, HostResult& result) {
  Cursor next{result.bag_splits[0], result.id_splits[0]};
  for (std::int64_t block = 0; block < num_blocks; ++block) {
    for (std::int64_t i = block; i < std::ssize(cursors); i += num_blocks) {
      next.bags += std::exchange(cursors[i].bags, next.bags);
      next.ids += std::exchange(cursors[i].ids, next.ids);
      cursors[i].last_bag = -1;
    }
    *++result.bag_splits = next.bags;
    *++result.id_splits = next.ids;
  }
}

// All ids are in one block: what is not an empty bag is copied.
void copy_whole(const HostSegment& segment, HostResult& result) {
  const std::int64_t first_id = result.id_splits[0];
  std::int64_t next = result.bag_splits[0];
  for (std::int64_t bag = 0; bag < segment.num_bags(); ++bag) {
    if (segment.offsets[bag + 1] == segment.offsets[bag]) continue;
    result.bag_index[next] = bag;
    result.offsets[next++] = first_id + segment.offsets[bag] - segment.offsets[0];
  }
  std::ranges::copy(segment.values, result.ids.begin() + first_id);
  if (!segment.weights.empty()) {
    std::ranges::copy(segment.weights, result.weights.begin() + first_id);
  }
  *++result.bag_splits = next;
  *++result.id_splits = first_id + std::ssize(segment.values);
}

template <typename RowOf>
void part_ids(const HostSegment& segment, const RowOf& row_of, HostResult& result,
              int num_threads_given) {
  const std::int64_t num_blocks = segment.num_blocks();
  const BlockFinder block_of(segment.row_splits);
  std::vector<Cursor> cursors(num_threads_given * num_blocks);  // [num_threads, num_blocks]
#pragma omp parallel num_threads(num_threads_given)
  {
    const int thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
    const std::int64_t begin = split_jagged(segment.offsets, thread, num_threads);
    const std::int64_t end = split_jagged(segment.offsets, thread + 1, num_threads);
    Cursor* own = cursors.data() + thread * num_blocks;
    for_each_id(segment, row_of, block_of, begin, end, own,
                [](Cursor& cursor, std::int64_t, bool new_bag, std::int64_t, std::int64_t) {
                  cursor.bags += new_bag;
                  ++cursor.ids;
                });
#pragma omp barrier
#pragma omp single
    place_cursors(cursors, num_blocks, result);
    for_each_id(
        segment, row_of, block_of, begin, end, own,
        [&](Cursor& cursor, std::int64_t bag, bool new_bag, std::int64_t i, std::int64_t row) {
          if (new_bag) {
            result.bag_index[cursor.bags] = bag;
            result.offsets[cursor.bags++] = cursor.ids;
          }
          if (!segment.weights.empty()) result.weights[cursor.ids] = segment.weights[i];
          result.ids[cursor.ids++] = row;
        });
  }
}

// Without a branch per id: the sign bit of id | (num_rows - 1 - id) is set when id is outside.
std::int64_t find_outside(std::span<const std::int64_t> values, std::int64_t num_rows) {
  constexpr std::int64_t kChunk = 1024;
  const auto last_row = static_cast<std::uint64_t>(num_rows - 1);
  for (std::int64_t begin = 0; begin < std::ssize(values); begin += kChunk) {
    const std::int64_t end = std::min(begin + kChunk, std::ssize(values));
    std::uint64_t signs = 0;
    for (std::int64_t i = begin; i < end; ++i) {
      const auto id = static_cast<std::uint64_t>(values[i]);
      signs |= id | (last_row - id);
    }
    if (signs >> 63 == 0) continue;
    for (std::int64_t i = begin;; ++i) {
      if (values[i] < 0 || values[i] >= num_rows) return i;
    }
  }
  return -1;
}

void bucketize_segment(const HostSegment& segment, OutsideIds outside, HostResult& result,
                       int num_threads) {
  const std::int64_t first_outside = find_outside(segment.values, segment.num_rows());
  *result.first_outside++ = first_outside;
  *result.num_outside = 0;
  if (first_outside >= 0) {
    const RowInRange row_of{segment.num_rows(), outside};
    *result.num_outside =
        std::ranges::count_if(segment.values, [&](std::int64_t id) { return !row_of.has(id); });
    part_ids(segment, row_of, result, num_threads);
  } else if (segment.num_blocks() == 1) {
    copy_whole(segment, result);
  } else {
    part_ids(segment, AnyRow{}, result, num_threads);
  }
  ++result.num_outside;
}

}  // namespace

template <>
void bucketize_on<DeviceType::kCpu>(std::span<const BucketizeSegment> segments, OutsideIds outside,
                                    BucketizedIds& result, const Stream& stream) {
  const auto sizes = host_view(result.sizes.span(), stream);
  std::int64_t* const num_outside = sizes.data() + 2 * (result.num_blocks + 1);
  HostResult host{.bag_splits = sizes.data(),
                  .id_splits = sizes.data() + result.num_blocks + 1,
                  .num_outside = num_outside,
                  .first_outside = num_outside + result.num_segments,
                  .bag_index = host_view(result.bag_index.span(), stream),
                  .offsets = host_view(result.offsets.span(), stream),
                  .ids = host_view(result.ids.span(), stream),
                  .weights = host_view(result.weights.span(), stream)};
  *host.bag_splits = *host.id_splits = 0;
  for (const BucketizeSegment& s : segments) {
    bucketize_segment({host_view(s.bags.values, stream), host_view(s.bags.offsets, stream),
                       host_view(s.bags.weights, stream), s.row_splits},
                      outside, host, stream.num_threads());
  }
  host.offsets[*host.bag_splits] = *host.id_splits;
}

}  // namespace serrate
