// Sorts the sequences of a batch by size classes, powers of two of the longer of their lengths. One
// block: each thread counts a run of sequences, so that the order within a class is the batch's.
#include "kernels/attention/cuda/work_list.h"

#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kThreads = 256, kClasses = 24;

// 0: up to 16 queries and keys, 1: up to 32, and so on; the last class has no end.
__device__ int class_of(const AttentionView& args, std::int64_t sequence) {
  const std::int64_t size = std::max(queries_of(args, sequence).count, num_keys_of(args, sequence));
  int result = 0;
  while (result < kClasses - 1 && size > std::int64_t{16} << result) ++result;
  return result;
}

// values[t] becomes the sum of those before it, of all threads; returns the sum of all.
__device__ std::int64_t sum_before(std::int64_t* values) {
  for (unsigned step = 1; step < kThreads; step *= 2) {
    __syncthreads();
    const std::int64_t before = threadIdx.x >= step ? values[threadIdx.x - step] : 0;
    __syncthreads();
    values[threadIdx.x] += before;
  }
  __syncthreads();
  const std::int64_t before = threadIdx.x > 0 ? values[threadIdx.x - 1] : 0;
  const std::int64_t all = values[kThreads - 1];
  __syncthreads();
  values[threadIdx.x] = before;
  return all;
}

struct Lists {
  std::int64_t *counts, *order, *first_query_tile, *first_key_tile;
};

// first_tile[place] becomes the sum of tiles_at of the places before, for a thread's places and the
// end of all.
template <typename F>
__device__ void number_tiles(std::int64_t begin, std::int64_t end, std::int64_t batch_size,
                             std::int64_t* first_tile, std::int64_t* sums, F&& tiles_at) {
  std::int64_t tiles = 0;
  for (std::int64_t place = begin; place < end; ++place) tiles += tiles_at(place);
  sums[threadIdx.x] = tiles;
  const std::int64_t all = sum_before(sums);
  tiles = sums[threadIdx.x];
  for (std::int64_t place = begin; place < end; ++place) {
    first_tile[place] = tiles;
    tiles += tiles_at(place);
  }
  if (threadIdx.x == 0) first_tile[batch_size] = all;
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads, 1)
    sort_by_size(const __grid_constant__ AttentionView args, const Lists lists) {
  __shared__ int places[kClasses][kThreads];
  __shared__ std::int64_t sums[kThreads];
  const std::int64_t batch_size = batch_size_of(args);
  const std::int64_t run = ceil_div(batch_size, kThreads);
  const auto t = static_cast<std::int64_t>(threadIdx.x);
  const std::int64_t begin = std::min(t * run, batch_size), end = std::min(begin + run, batch_size);
  for (int c = 0; c < kClasses; ++c) places[c][t] = 0;
  for (std::int64_t s = begin; s < end; ++s) ++places[class_of(args, s)][t];
  std::int64_t before = 0, short_ones = 0;
  for (int c = kClasses - 1; c >= 0; --c) {
    sums[t] = places[c][t];
    const std::int64_t count = sum_before(sums);
    places[c][t] = static_cast<int>(before + sums[t]);
    if (c == 1) short_ones = before;
    if (t == 0 && c <= 1) lists.counts[2 - c] = count;
    before += count;
  }
  if (t == 0) lists.counts[0] = short_ones;
  for (std::int64_t s = begin; s < end; ++s) lists.order[places[class_of(args, s)][t]++] = s;
  __syncthreads();
  number_tiles(begin, end, batch_size, lists.first_query_tile, sums, [&](std::int64_t place) {
    if (place >= short_ones) return std::int64_t{0};
    return ceil_div(queries_of(args, lists.order[place]).count, kMmaTile);
  });
  number_tiles(begin, end, batch_size, lists.first_key_tile, sums, [&](std::int64_t place) {
    if (place >= short_ones) return std::int64_t{0};
    return ceil_div(num_keys_of(args, lists.order[place]), kMmaTile);
  });
}

}  // namespace

CudaAttentionPlan list_work(const AttentionView& args, const Stream& stream) {
  const std::int64_t batch_size = batch_size_of(args);
  CudaAttentionPlan plan{Buffer<std::int64_t>(5 + 3 * batch_size, stream)};
  std::int64_t *counts = plan.values.device_data(), *order = counts + 3;
  std::int64_t* first_tile = order + batch_size;
  launch(sort_by_size, 1, kThreads, 0, stream, args,
         Lists{counts, order, first_tile, first_tile + batch_size + 1});
  return plan;
}

}  // namespace serrate
