// A block has a row. It finds the score of the last candidate to keep digit by digit (a radix
// select), gathers those before it, and gives each its place: the number of better ones. As many
// more are kept as are excluded in the row, which leaves k whichever those are.
#include <cub/block/block_scan.cuh>

#include <limits>

#include "kernels/cuda/fours.cuh"
#include "serrate/buffer.h"
#include "serrate/kernels/top_k.h"

namespace serrate {
namespace {

constexpr unsigned kThreads = 256;  // also the values of a digit
constexpr int kDigitBits = 8;
constexpr std::uint64_t kExcluded = ~std::uint64_t{0};  // a key that no candidate has

// TopK as a kernel sees it.
struct Rankings {
  Rows<const float> scores;
  std::int64_t cols, k, first_id;
  const std::int64_t *excluded, *excluded_offsets;  // or null
  std::uint64_t* keys;  // [rows * k + excluded]: the kept candidates of a row after the other
  Rows<float> best_scores;
  Rows<std::int64_t> best_ids;
};

// Better scores have smaller words; 0 and -0 have the same one.
__device__ std::uint32_t order_of(float score) {
  const std::uint32_t bits = __float_as_uint(score + 0.0f);
  return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

// What the threads of a block share.
struct BlockState {
  cub::BlockScan<unsigned, kThreads>::TempStorage scan;
  unsigned counts[kThreads];
  unsigned digit, rest, next;
};

// Calls f(c, order) for the row's columns, all threads equally often; there is none at or behind
// args.cols.
template <Access kAccess, typename F>
__device__ void for_each_score(const Rankings& args, F f) {
  const float* const scores = args.scores.row(blockIdx.x);
  for (std::int64_t begin = 0; begin < args.cols; begin += kThreads * 4) {
    const std::int64_t c = begin + threadIdx.x * 4;
    f(c, load_four<kAccess>(scores, c, args.cols));
  }
}

// Where the last of `wanted` candidates is: its word, and how many to keep of those that have it.
struct Threshold {
  std::uint32_t order;
  unsigned equal;
};

template <Access kAccess>
__device__ Threshold find_threshold(const Rankings& args, std::int64_t wanted, BlockState& state) {
  Threshold threshold{0, static_cast<unsigned>(wanted)};
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    state.counts[threadIdx.x] = 0;
    __syncthreads();
    const std::uint64_t above = std::uint64_t{threshold.order} >> (shift + kDigitBits);
    for_each_score<kAccess>(args, [&](std::int64_t c, const Four& scores) {
      for (int k = 0; k < 4 && c + k < args.cols; ++k) {
        const std::uint64_t order = order_of(scores.value[k]);
        if (order >> (shift + kDigitBits) != above) continue;
        atomicAdd(&state.counts[order >> shift & (kThreads - 1)], 1u);
      }
    });
    __syncthreads();
    unsigned up_to;
    const unsigned count = state.counts[threadIdx.x];
    cub::BlockScan<unsigned, kThreads>(state.scan).InclusiveSum(count, up_to);
    if (up_to - count < threshold.equal && threshold.equal <= up_to) {
      state.digit = threadIdx.x;
      state.rest = threshold.equal - (up_to - count);
    }
    __syncthreads();
    threshold.order |= state.digit << shift;
    threshold.equal = state.rest;
    __syncthreads();
  }
  return threshold;
}

// Better candidates have smaller keys: by score, then by column.
__device__ std::uint64_t key_of(float score, std::int64_t column) {
  return std::uint64_t{order_of(score)} << 32 | static_cast<std::uint64_t>(column);
}

// Those that are better than the threshold come in any order, behind them the first of those at it.
template <Access kAccess>
__device__ void gather(const Rankings& args, std::int64_t wanted, const Threshold& threshold,
                       std::uint64_t* keys, BlockState& state) {
  if (threadIdx.x == 0) state.next = 0;
  __syncthreads();
  std::uint64_t* const equal = keys + (wanted - threshold.equal);
  unsigned equal_before = 0;
  for_each_score<kAccess>(args, [&](std::int64_t c, const Four& scores) {
    unsigned mine = 0;
    for (int k = 0; k < 4 && c + k < args.cols; ++k) {
      const std::uint32_t order = order_of(scores.value[k]);
      if (order < threshold.order) {
        keys[atomicAdd(&state.next, 1u)] = key_of(scores.value[k], c + k);
      }
      mine += order == threshold.order;
    }
    unsigned place, of_tile;
    cub::BlockScan<unsigned, kThreads>(state.scan).ExclusiveSum(mine, place, of_tile);
    __syncthreads();  // before the scan's memory is used again
    place += equal_before;
    equal_before += of_tile;
    for (int k = 0; k < 4 && c + k < args.cols && place < threshold.equal; ++k) {
      if (order_of(scores.value[k]) != threshold.order) continue;
      equal[place++] = key_of(scores.value[k], c + k);
    }
  });
  __syncthreads();
}

// state.next = how many are left.
__device__ void drop_excluded(const Rankings& args, std::int64_t begin, std::int64_t end,
                              std::uint64_t* keys, std::int64_t size, BlockState& state) {
  if (threadIdx.x == 0) state.next = 0;
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < size; i += kThreads) {
    const std::int64_t id = args.first_id + static_cast<std::uint32_t>(keys[i]);
    bool is_excluded = false;
    for (std::int64_t e = begin; e < end; ++e) is_excluded |= args.excluded[e] == id;
    if (is_excluded) {
      keys[i] = kExcluded;
    } else {
      atomicAdd(&state.next, 1u);
    }
  }
  __syncthreads();
}

__device__ void write_places(const Rankings& args, const std::uint64_t* keys, std::int64_t size) {
  for (std::int64_t i = threadIdx.x; i < size; i += kThreads) {
    const std::uint64_t key = keys[i];
    if (key == kExcluded) continue;
    std::int64_t place = 0;
    for (std::int64_t other = 0; other < size; ++other) place += keys[other] < key;
    if (place >= args.k) continue;
    const std::uint32_t column = static_cast<std::uint32_t>(key);
    args.best_scores.row(blockIdx.x)[place] = args.scores.row(blockIdx.x)[column];
    args.best_ids.row(blockIdx.x)[place] = args.first_id + column;
  }
}

__device__ void fill(const Rankings& args, std::int64_t first_place, float score) {
  for (std::int64_t place = first_place + threadIdx.x; place < args.k; place += kThreads) {
    args.best_scores.row(blockIdx.x)[place] = score;
    args.best_ids.row(blockIdx.x)[place] = -1;
  }
}

template <Access kAccess>
__device__ bool has_nan(const Rankings& args) {
  bool found = false;
  for_each_score<kAccess>(args, [&](std::int64_t, const Four& scores) {
    for (int k = 0; k < 4; ++k) found |= isnan(scores.value[k]);
  });
  return __syncthreads_or(found);
}

template <Access kAccess>
__global__ void __launch_bounds__(kThreads) rank_row(Rankings args) {
  __shared__ BlockState state;
  if (has_nan<kAccess>(args)) return fill(args, 0, __int_as_float(0x7fc00000));
  const std::int64_t r = blockIdx.x;
  const std::int64_t begin = args.excluded_offsets ? args.excluded_offsets[r] : 0;
  const std::int64_t end = args.excluded_offsets ? args.excluded_offsets[r + 1] : 0;
  const std::int64_t wanted = std::min(args.k + (end - begin), args.cols);
  if (wanted == 0) return fill(args, 0, -__int_as_float(0x7f800000));
  std::uint64_t* const keys = args.keys + r * args.k + begin;
  gather<kAccess>(args, wanted, find_threshold<kAccess>(args, wanted, state), keys, state);
  drop_excluded(args, begin, end, keys, wanted, state);
  write_places(args, keys, wanted);
  fill(args, state.next, -__int_as_float(0x7f800000));
}

}  // namespace

template <>
void top_k_on<DeviceType::kCuda>(const TopK& args, const Stream& stream) {
  check(args.scores.cols < std::numeric_limits<std::uint32_t>::max(),
        "top_k: a GPU ranks fewer than 2^32 candidates at once");
  const std::int64_t n = args.scores.rows, k = args.best_ids.cols;
  if (n == 0 || k == 0) return;
  Buffer<std::uint64_t> keys(n * k + std::ssize(args.excluded), stream);
  const Rankings rankings{
      rows_of(args.scores),
      args.scores.cols,
      k,
      args.first_id,
      args.excluded.device_data(),
      args.excluded_offsets.empty() ? nullptr : args.excluded_offsets.device_data(),
      keys.device_data(),
      rows_of(args.best_scores),
      rows_of(args.best_ids)};
  with_access(
      [&](auto access) {
        launch(rank_row<access()>, static_cast<unsigned>(n), kThreads, 0, stream, rankings);
      },
      args.scores);
}

}  // namespace serrate
