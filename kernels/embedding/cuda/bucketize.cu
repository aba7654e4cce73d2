// Ids are parted by two kernels whose blocks have the same tiles of a feature each. Both put a
// tile's ids in order of row blocks, in shared memory; the first counts how many ids and bags of
// each row block the tiles have, of which its last block makes the places where the second writes.
// Order is kept, and no number is needed on the host.
#include <algorithm>
#include <vector>

#include "kernels/cuda/block_sums.cuh"
#include "kernels/embedding/cuda/bag_search.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "serrate/kernels/bucketize.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr unsigned kWarp = 32, kWarps = kSearchBlock / kWarp;
// A segment of more row blocks has its ids gone through once for so many of them.
constexpr std::int64_t kMostRowBlocks = 128;

// Bags that have an id in a row block, and ids: a number of each, or a place.
struct Counts {
  std::int64_t bags, ids;

  friend __host__ __device__ Counts operator+(Counts a, Counts b) {
    return {a.bags + b.bags, a.ids + b.ids};
  }
  friend __host__ __device__ Counts operator-(Counts a, Counts b) {
    return {a.bags - b.bags, a.ids - b.ids};
  }
};

// Some row blocks of a BucketizeSegment as a kernel sees them.
struct IdsOfSegment {
  const std::int64_t* values;
  const std::int64_t* offsets;
  const float* weights;  // or null
  std::int64_t num_bags, num_ids;
  std::int64_t number;          // of the segment where its ids outside are counted; else -1
  std::int64_t num_table_rows;  // ids are below it, or outside
  std::int64_t row_begin, row_end;
  std::int64_t first_row_block;  // among those of all segments
  std::int64_t num_row_blocks;
  std::int64_t first_block = 0;
};

// What both kernels are called with.
struct Parting {
  const IdsOfSegment* segments;
  int num_segments;
  OutsideIds outside;
  std::int64_t num_row_blocks;
  const std::int64_t* first_rows;    // [row blocks]
  const std::int64_t* first_counts;  // [row blocks + 1]: in `counts`
  Counts* counts;  // of each row block one for each tile, then in the same order where they go
};

// The arrays of BucketizedIds.
struct Result {
  std::int64_t *bag_splits, *id_splits;
  unsigned long long *num_outside, *first_outside;
  std::int64_t *bag_index, *offsets, *ids;
  float* weights;  // or null
};

// The sum of those of the threads before, for each thread of a block, all of which call it.
__device__ Counts sum_before(Counts own, Counts& total) {
  __shared__ Counts of_warps[kWarps];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Counts sum = own;
  for (unsigned delta = 1; delta < kWarp; delta *= 2) {
    const Counts other{__shfl_up_sync(~0u, sum.bags, delta), __shfl_up_sync(~0u, sum.ids, delta)};
    if (lane >= delta) sum = sum + other;
  }
  __syncthreads();  // a call before this one is over
  if (lane == kWarp - 1) of_warps[warp] = sum;
  __syncthreads();
  Counts before{};
  total = {};
#pragma unroll 4
  for (unsigned w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total = total + of_warps[w];
  }
  return before + sum - own;
}

// How many of the threads before have the same row block, for each thread that has one (not -1);
// thread b gets in num_ids how many have row block b. All threads of a block call it, once.
__device__ int rank_in_row_block(int row_block, std::int64_t num_row_blocks, int& num_ids) {
  __shared__ int counts[kWarps * kMostRowBlocks];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (unsigned i = threadIdx.x; i < kWarps * num_row_blocks; i += kSearchBlock) counts[i] = 0;
  __syncthreads();
  const unsigned same = __match_any_sync(~0u, row_block);
  const int before = __popc(same & ((1u << lane) - 1));
  const std::int64_t own = warp * num_row_blocks + row_block;
  if (row_block >= 0 && before == 0) counts[own] = __popc(same);
  __syncthreads();
  num_ids = 0;
  if (threadIdx.x < num_row_blocks) {
    for (unsigned w = 0; w < kWarps; ++w) {
      int& count = counts[w * num_row_blocks + threadIdx.x];
      const int of_warp = count;
      count = num_ids;
      num_ids += of_warp;
    }
  }
  __syncthreads();
  return row_block < 0 ? 0 : counts[own] + before;
}

// A tile's ids in order of row blocks, in shared memory.
struct SortedTile {
  std::int64_t first_rows[kMostRowBlocks];  // of the row blocks
  std::int64_t rows[kSearchBlock];          // in the row block
  std::int64_t bags[kSearchBlock];
  float weights[kSearchBlock];
  int row_blocks[kSearchBlock];
  int ids_before[kMostRowBlocks];     // of a row block's first id
  int bags_before[kSearchBlock + 1];  // of each id: those that begin in its row block
  unsigned has_ids[kMostRowBlocks];   // before the tile, in its first bag
  std::int64_t first_bag, first_bag_begin;

  // The segment's row block of an id, and its row there; -1 for an id that is in none.
  struct Place {
    int row_block;
    std::int64_t row;
  };
  __device__ Place place(const IdsOfSegment& s, std::int64_t id, OutsideIds outside) const {
    if (id < 0 || id >= s.num_table_rows) {
      id = outside == OutsideIds::kLastRow ? s.num_table_rows - 1 : -1;
    }
    if (id < s.row_begin || id >= s.row_end) return {-1, 0};
    const std::int64_t found =
        last_at_most(s.num_row_blocks, id, [this](std::int64_t b) { return first_rows[b]; });
    return {static_cast<int>(found), id - first_rows[found]};
  }
};

// What a thread gets of a sorted tile.
struct Sorted {
  bool is_there = false;      // the tile's id of its number in the new order
  bool begins_bag = false;    // of the row block
  Counts of_row_block{};      // for thread b: those of the tile in row block b
  std::int64_t num_bags = 0;  // of all row blocks, in the tile
  bool is_outside = false;    // its id in the old order
};

// All threads of a block call it, once. A bag that began in an earlier tile is not a new one of a
// row block that has an id of it there.
__device__ Sorted sort_tile(const IdsOfSegment& s, const Parting& parting, SortedTile& tile) {
  const std::int64_t first = first_of_tile(s, kSearchBlock), i = first + threadIdx.x;
  const auto t = static_cast<int>(threadIdx.x);
  if (t < s.num_row_blocks) {
    tile.first_rows[t] = parting.first_rows[s.first_row_block + t];
    tile.has_ids[t] = 0;
  }
  const Found bag = bag_in_block(s.offsets, s.num_bags, first);  // and a barrier
  if (t == 0) tile.first_bag = bag.index, tile.first_bag_begin = bag.value;
  Sorted own;
  SortedTile::Place place{-1, 0};
  if (i < s.num_ids) {
    const std::int64_t id = s.values[i];
    own.is_outside = id < 0 || id >= s.num_table_rows;
    place = tile.place(s, id, parting.outside);
  }
  int num_ids = 0;
  const int rank = rank_in_row_block(place.row_block, s.num_row_blocks, num_ids);
  Counts total{};
  const Counts before = sum_before({0, num_ids}, total);
  if (t < s.num_row_blocks) tile.ids_before[t] = static_cast<int>(before.ids);
  __syncthreads();
  if (place.row_block >= 0) {
    const int to = tile.ids_before[place.row_block] + rank;
    tile.rows[to] = place.row;
    tile.bags[to] = bag.index;
    tile.row_blocks[to] = place.row_block;
    if (s.weights) tile.weights[to] = s.weights[i];
  }
  __syncthreads();
  own.is_there = t < total.ids;
  const int row_block = own.is_there ? tile.row_blocks[t] : 0;
  const bool is_first = own.is_there && t == tile.ids_before[row_block];
  const bool may_go_on = is_first && tile.bags[t] == tile.first_bag && tile.first_bag_begin < first;
  for (std::int64_t end = first;
       __syncthreads_or(may_go_on && tile.has_ids[row_block] == 0) && end > tile.first_bag_begin;
       end -= kSearchBlock) {
    const std::int64_t j = end - 1 - t;
    if (j >= tile.first_bag_begin) {
      const SortedTile::Place earlier = tile.place(s, s.values[j], parting.outside);
      if (earlier.row_block >= 0) atomicExch(&tile.has_ids[earlier.row_block], 1u);
    }
    __syncthreads();
  }
  own.begins_bag = own.is_there && (is_first ? !(may_go_on && tile.has_ids[row_block] != 0)
                                             : tile.bags[t] != tile.bags[t - 1]);
  const Counts bags_before = sum_before({own.begins_bag, 0}, total);
  own.num_bags = total.bags;
  tile.bags_before[t] = static_cast<int>(bags_before.bags);
  if (t == 0) tile.bags_before[kSearchBlock] = static_cast<int>(own.num_bags);
  __syncthreads();
  if (t < s.num_row_blocks) {
    const std::int64_t begin = before.ids;
    own.of_row_block = {tile.bags_before[begin + num_ids] - tile.bags_before[begin], num_ids};
  }
  return own;
}

// The counts become the sums of those before them, and one more is that of all.
__device__ void sum_counts(Counts* counts, std::int64_t size) {
  constexpr std::int64_t kEach = 2;
  Counts sum{};
  for (std::int64_t at = 0; at < size; at += kEach * kSearchBlock) {
    const std::int64_t first = at + kEach * threadIdx.x;
    Counts own[kEach], of_thread{}, total{};
#pragma unroll
    for (std::int64_t k = 0; k < kEach; ++k) {
      own[k] = first + k < size ? counts[first + k] : Counts();
      of_thread = of_thread + own[k];
    }
    Counts before = sum + sum_before(of_thread, total);
#pragma unroll
    for (std::int64_t k = 0; k < kEach; ++k) {
      if (first + k < size) counts[first + k] = before;
      before = before + own[k];
    }
    sum = sum + total;
  }
  if (threadIdx.x == 0) counts[size] = sum;
}

// One thread per id.
__global__ void __launch_bounds__(kSearchBlock, 2)
    count_ids(Parting parting, unsigned* done_blocks, Result to) {
  __shared__ SortedTile tile;
  const IdsOfSegment s = segment_of_block(parting.segments, parting.num_segments);
  const Sorted own = sort_tile(s, parting, tile);
  if (own.is_outside && s.number >= 0) {
    atomicAdd(to.num_outside + s.number, 1ull);
    atomicMin(to.first_outside + s.number,
              static_cast<unsigned long long>(first_of_tile(s, kSearchBlock) + threadIdx.x));
  }
  if (threadIdx.x < s.num_row_blocks) {
    const std::int64_t first = parting.first_counts[s.first_row_block + threadIdx.x];
    parting.counts[first + (blockIdx.x - s.first_block)] = own.of_row_block;
  }
  if (!is_last_block(done_blocks, gridDim.x)) return;
  const std::int64_t num_counts = parting.first_counts[parting.num_row_blocks];
  sum_counts(parting.counts, num_counts);
  __syncthreads();
  for (std::int64_t b = threadIdx.x; b <= parting.num_row_blocks; b += kSearchBlock) {
    const Counts split = parting.counts[parting.first_counts[b]];
    to.bag_splits[b] = split.bags;
    to.id_splits[b] = split.ids;
    if (b == parting.num_row_blocks) to.offsets[split.bags] = split.ids;
  }
}

// One thread per id.
__global__ void __launch_bounds__(kSearchBlock, 2) write_ids(Parting parting, Result to) {
  __shared__ SortedTile tile;
  __shared__ Counts shifts[kMostRowBlocks];  // from a number in the tile to one in the result
  __shared__ int beginnings[kSearchBlock];   // of bags of row blocks
  const IdsOfSegment s = segment_of_block(parting.segments, parting.num_segments);
  const Sorted own = sort_tile(s, parting, tile);
  const unsigned t = threadIdx.x;
  if (t < s.num_row_blocks) {
    const std::int64_t first = parting.first_counts[s.first_row_block + t];
    const int before = tile.ids_before[t];
    shifts[t] = parting.counts[first + (blockIdx.x - s.first_block)] -
                Counts{tile.bags_before[before], before};
  }
  if (own.begins_bag) beginnings[tile.bags_before[t]] = static_cast<int>(t);
  __syncthreads();
  if (own.is_there) {
    const std::int64_t at = shifts[tile.row_blocks[t]].ids + t;
    to.ids[at] = tile.rows[t];
    if (to.weights) to.weights[at] = tile.weights[t];
  }
  if (t < own.num_bags) {
    const int id = beginnings[t];
    const Counts shift = shifts[tile.row_blocks[id]];
    to.bag_index[shift.bags + t] = tile.bags[id];
    to.offsets[shift.bags + t] = shift.ids + id;
  }
}

}  // namespace

template <>
void bucketize_on<DeviceType::kCuda>(std::span<const BucketizeSegment> segments, OutsideIds outside,
                                     BucketizedIds& result, const Stream& stream) {
  SegmentTiles<IdsOfSegment> tiles;
  std::vector<std::int64_t> first_rows, first_counts;
  std::int64_t num_counts = 0;
  for (std::int64_t number = 0; number < std::ssize(segments); ++number) {
    const BucketizeSegment& s = segments[number];
    const std::int64_t num_ids = s.bags.num_values();
    const std::int64_t num_row_blocks = std::ssize(s.row_splits) - 1;
    for (std::int64_t b = 0; b < num_row_blocks; b += kMostRowBlocks) {
      const std::int64_t end = std::min(b + kMostRowBlocks, num_row_blocks);
      tiles.add({.values = s.bags.values.device_data(),
                 .offsets = s.bags.offsets.device_data(),
                 .weights = s.bags.weights.device_data(),
                 .num_bags = s.bags.num_bags(),
                 .num_ids = num_ids,
                 .number = b == 0 ? number : -1,
                 .num_table_rows = s.row_splits.back(),
                 .row_begin = s.row_splits[b],
                 .row_end = s.row_splits[end],
                 .first_row_block = std::ssize(first_rows) + b,
                 .num_row_blocks = end - b},
                num_ids, kSearchBlock);
    }
    first_rows.insert(first_rows.end(), s.row_splits.begin(), s.row_splits.end() - 1);
    for (std::int64_t b = 0; b < num_row_blocks; ++b) {
      first_counts.push_back(num_counts);
      num_counts += (num_ids + kSearchBlock - 1) / kSearchBlock;
    }
  }
  first_counts.push_back(num_counts);
  // Without ids all sizes are 0; otherwise the kernels write all but those of what is outside.
  std::vector<std::int64_t> no_ids(result.sizes.size(), 0);
  std::fill(no_ids.end() - std::ssize(segments), no_ids.end(), -1);
  copy_from_host<std::int64_t>(no_ids, result.sizes.span(), stream);
  if (num_counts == 0) return fill_zero(result.offsets.span().first(1), stream);

  const std::int64_t num_splits = result.num_blocks + 1;
  std::int64_t* const sizes = result.sizes.device_data();
  auto* const num_outside = reinterpret_cast<unsigned long long*>(sizes + 2 * num_splits);
  const Result to{.bag_splits = sizes,
                  .id_splits = sizes + num_splits,
                  .num_outside = num_outside,
                  .first_outside = num_outside + segments.size(),
                  .bag_index = result.bag_index.device_data(),
                  .offsets = result.offsets.device_data(),
                  .ids = result.ids.device_data(),
                  .weights = result.weights.size() > 0 ? result.weights.device_data() : nullptr};
  const Buffer<IdsOfSegment> on_device = tiles.on_device(stream);
  const Buffer<std::int64_t> rows(first_rows, stream), at(first_counts, stream);
  Buffer<Counts> counts(num_counts + 1, stream);
  const Parting parting{.segments = on_device.device_data(),
                        .num_segments = tiles.num_segments(),
                        .outside = outside,
                        .num_row_blocks = result.num_blocks,
                        .first_rows = rows.device_data(),
                        .first_counts = at.device_data(),
                        .counts = counts.device_data()};
  launch(count_ids, tiles.num_blocks(), kSearchBlock, 0, stream, parting,
         done_blocks_of(1, 1, stream), to);
  launch(write_ids, tiles.num_blocks(), kSearchBlock, 0, stream, parting, to);
}

}  // namespace serrate
