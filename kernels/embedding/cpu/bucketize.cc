#include <omp.h>

#include <algorithm>
#include <numeric>
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

// Bags and ids of one thread in one block: first counts, then positions to write to.
struct Cursor {
  std::int64_t bags = 0;
  std::int64_t ids = 0;
  std::int64_t last_bag = -1;
};

// Calls f(cursor of the block, bag, whether the bag is new to the block, block, position) for each
// id of bags [begin, end).
template <typename F>
void for_each_id(const JaggedView& feature, const BlockFinder& block_of, std::int64_t begin,
                 std::int64_t end, Cursor* cursors, F f) {
  for (std::int64_t bag = begin; bag < end; ++bag) {
    const std::int64_t last = feature.offsets[bag + 1] - feature.offsets[0];
    for (std::int64_t i = feature.offsets[bag] - feature.offsets[0]; i < last; ++i) {
      const std::int64_t block = block_of(feature.values[i]);
      Cursor& cursor = cursors[block];
      f(cursor, bag, std::exchange(cursor.last_bag, bag) != bag, block, i);
    }
  }
}

void resize(BucketizedIds& result, bool weighted, const Stream& stream) {
  const auto sum = [](const std::vector<std::int64_t>& counts) {
    return std::reduce(counts.begin(), counts.end());
  };
  const std::int64_t num_bags = sum(result.bag_counts), num_ids = sum(result.id_counts);
  result.bag_index.resize_discard(num_bags, stream);
  result.lengths.resize_discard(num_bags, stream);
  result.ids.resize_discard(num_ids, stream);
  result.weights.resize_discard(weighted ? num_ids : 0, stream);
}

// Turns counts into first positions, block by block and thread by thread: stable.
void place_cursors(std::span<Cursor> cursors, BucketizedIds& result) {
  const std::int64_t num_blocks = std::ssize(result.bag_counts);
  Cursor next;
  for (std::int64_t block = 0; block < num_blocks; ++block) {
    const Cursor first = next;
    for (std::int64_t i = block; i < std::ssize(cursors); i += num_blocks) {
      next.bags += std::exchange(cursors[i].bags, next.bags);
      next.ids += std::exchange(cursors[i].ids, next.ids);
      cursors[i].last_bag = -1;
    }
    result.bag_counts[block] = next.bags - first.bags;
    result.id_counts[block] = next.ids - first.ids;
  }
}

// All ids are in one block: what is not an empty bag is copied.
void copy_whole(const JaggedView& feature, BucketizedIds& result, const Stream& stream) {
  result.bag_counts = {0};
  result.id_counts = {feature.num_values()};
  for (std::int64_t bag = 0; bag < feature.num_bags(); ++bag) {
    result.bag_counts[0] += feature.offsets[bag + 1] > feature.offsets[bag];
  }
  resize(result, !feature.weights.empty(), stream);
  std::int64_t next = 0;
  for (std::int64_t bag = 0; bag < feature.num_bags(); ++bag) {
    const std::int64_t length = feature.offsets[bag + 1] - feature.offsets[bag];
    if (length == 0) continue;
    result.bag_index.data()[next] = bag;
    result.lengths.data()[next++] = length;
  }
  std::ranges::copy(feature.values, result.ids.data());
  std::ranges::copy(feature.weights, result.weights.data());
}

}  // namespace

template <>
void bucketize_on<DeviceType::kCpu>(const JaggedView& feature,
                                    std::span<const std::int64_t> row_splits, BucketizedIds& result,
                                    const Stream& stream) {
  const std::int64_t num_blocks = std::ssize(row_splits) - 1;
  if (num_blocks == 1) return copy_whole(feature, result, stream);
  const BlockFinder block_of(row_splits);
  result.bag_counts.resize(num_blocks);
  result.id_counts.resize(num_blocks);
  std::vector<Cursor> cursors(stream.num_threads() * num_blocks);  // [num_threads, num_blocks]
#pragma omp parallel num_threads(stream.num_threads())
  {
    const int thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
    const std::int64_t begin = split_jagged(feature.offsets, thread, num_threads);
    const std::int64_t end = split_jagged(feature.offsets, thread + 1, num_threads);
    Cursor* own = cursors.data() + thread * num_blocks;
    for_each_id(feature, block_of, begin, end, own,
                [](Cursor& cursor, std::int64_t, bool new_bag, std::int64_t, std::int64_t) {
                  cursor.bags += new_bag;
                  ++cursor.ids;
                });
#pragma omp barrier
#pragma omp single
    {
      place_cursors(cursors, result);
      resize(result, !feature.weights.empty(), stream);
    }
    std::int64_t *bag_index = result.bag_index.data(), *lengths = result.lengths.data();
    for_each_id(
        feature, block_of, begin, end, own,
        [&](Cursor& cursor, std::int64_t bag, bool new_bag, std::int64_t block, std::int64_t i) {
          if (new_bag) {
            bag_index[cursor.bags] = bag;
            lengths[cursor.bags++] = 0;
          }
          ++lengths[cursor.bags - 1];
          if (!feature.weights.empty()) {
            result.weights.data()[cursor.ids] = feature.weights[i];
          }
          result.ids.data()[cursor.ids++] = feature.values[i] - row_splits[block];
        });
  }
}

// Without a branch per id: the sign bit of id | (num_rows - 1 - id) is set when id is outside.
template <>
std::int64_t find_invalid_id_on<DeviceType::kCpu>(std::span<const std::int64_t> values,
                                                  std::int64_t num_rows, const Stream&) {
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

}  // namespace serrate
