#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/key_slots.cuh"

// The two launches of a forward over one work list: blocks of longer sequences, and of the others.
namespace serrate {

/// Which sequences a launch takes, and how many tiles of keys a block has room for.
enum class Lengths { kLong, kShort };
struct ForwardShare {
  Lengths lengths;
  int slots;
  bool has_longest;  // of kLong: also those of more than most_of_whole queries or keys
};

template <int kDim>
__device__ TaskNumbers numbers_of(const AttentionView& args, const WorkList& work,
                                  const ForwardShare& share) {
  return {work.forward, TaskNumbers::Rows::kQueries,
          share.lengths == Lengths::kLong ? kWarpRows * warps_for_long(kDim) : kMmaTile,
          args.num_heads, 1};
}

__device__ inline TaskRange range_of(const AttentionView& args, const WorkList& work,
                                     const TaskNumbers& numbers, const ForwardShare& share) {
  TaskRange range = all_tasks(args, work, numbers);
  const std::int64_t end_of_long_share = work.forward[work.counts[0]];
  if (share.lengths == Lengths::kLong) {
    range.begin = share.has_longest ? 0 : work.forward[work.counts[4]];
    range.end = end_of_long_share;
  } else {
    range.begin = end_of_long_share;
  }
  return range;
}

/// Calls f(warps that have rows of their own, as a constant, share, shape of its blocks) for both
/// launches. Rows of keys and values have `row_bytes` each, those of queries `query_bytes`.
template <int kDim, typename F>
void for_each_share(const AttentionView& args, int query_bytes, int row_bytes, bool has_longest,
                    const Stream& stream, F&& f) {
  const auto share_of = [&](auto num_warps, const ForwardShare& share, std::int64_t most_slots,
                            std::int64_t most_tasks) {
    const std::int64_t queries = std::int64_t{num_warps()} * kWarpRows * query_bytes;
    const std::int64_t slot = slot_bytes(row_bytes);
    f(num_warps, share,
      BlockShape{num_warps(), queries + share.slots * slot, queries + most_slots * slot,
                 most_tasks});
  };
  constexpr std::integral_constant<int, kWarps> kForShort;
  constexpr std::integral_constant<int, warps_for_long(kDim)> kForLong;
  constexpr int kShortTiles = short_size(kDim) / kMmaTile;
  const std::int64_t pairs = batch_size_of(args) * args.num_key_heads;
  const auto room_of = [&](int num_warps) {
    return most_slots(shared_bytes_of(stream) - num_warps * kWarpRows * query_bytes, row_bytes);
  };
  const int most = room_of(kForLong());
  const int of_short =
      std::min(room_of(kForShort()), kShortTiles * kMmaTile / slot_rows(row_bytes));
  // A block that has not a whole sequence sees each tile once.
  const int slots = pairs >= many_pairs(stream) ? most : std::min(most, 2);
  share_of(kForLong, {Lengths::kLong, slots, has_longest}, most,
           std::numeric_limits<std::int64_t>::max());
  share_of(kForShort, {Lengths::kShort, of_short, false}, kForShort == kForLong ? most : of_short,
           kShortTiles * batch_size_of(args) * args.num_heads);
}

}  // namespace serrate
