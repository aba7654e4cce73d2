#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "serrate/buffer.h"

// Sums over the blocks of a launch in a fixed order, without atomics on floats and without a second
// launch: each block leaves its part in memory; of 16 blocks the last one to come adds up theirs,
// and the last one of those all sums.
namespace serrate {

constexpr unsigned kSummedBlocks = 16;

/// How many counters a sum of so many parts has.
__host__ __device__ inline unsigned counters_of_sum(unsigned parts) {
  return 1 + (parts + kSummedBlocks - 1) / kSummedBlocks;
}

/// How many blocks of a stream's running kernel are done, for each of its sums of all and of each
/// 16; zeros between kernels.
struct DoneBlocks {
  Buffer<unsigned> counts;
  explicit DoneBlocks(const Stream&) {}
};

/// The counters of a kernel with so many sums of so many parts each.
inline unsigned* done_blocks_of(std::int64_t sums, std::int64_t parts, const Stream& stream) {
  Buffer<unsigned>& counts = stream.attached<DoneBlocks>().counts;
  const std::int64_t needed = sums * counters_of_sum(static_cast<unsigned>(parts));
  if (counts.size() < needed) counts = Buffer<unsigned>::zeros(needed, stream);
  return counts.device_data();
}

/// Whether this block is the last of so many to call it with this counter, which is then zero
/// again; it sees what the others wrote before. All threads of a block call it.
__device__ inline bool is_last_block(unsigned* done_blocks, unsigned blocks) {
  __shared__ unsigned is_last;
  __syncthreads();
  if (threadIdx.x == 0 && threadIdx.y == 0) {
    __threadfence();  // what the block wrote comes before the count,
    is_last = atomicAdd(done_blocks, 1u) == blocks - 1;
    if (is_last) atomicExch(done_blocks, 0u);
    __threadfence();  // which comes before what the last one reads
  }
  __syncthreads();
  return is_last;
}

/// The parts of a sum, each [rows, cols], in the order in which they are added up. T may be Four.
template <typename T>
struct SummedParts {
  T* data;
  std::int64_t part_stride, row_stride;
  unsigned rows, cols;

  /// Parts of floats, whose strides and columns are whole T's.
  __device__ static SummedParts of(float* data, std::int64_t part_stride, std::int64_t row_stride,
                                   std::int64_t rows, std::int64_t cols) {
    constexpr std::int64_t kFloats = sizeof(T) / sizeof(float);
    return {reinterpret_cast<T*>(data), part_stride / kFloats, row_stride / kFloats,
            static_cast<unsigned>(rows), static_cast<unsigned>(cols / kFloats)};
  }
  __device__ T& at(unsigned part, unsigned row, unsigned col) const {
    return data[part * part_stride + row * row_stride + col];
  }
};

/// Calls f(row, col) for this thread's of the values that the block has together.
template <typename F>
__device__ void for_each_value_of_block(unsigned rows, unsigned cols, F f) {
  const unsigned threads = blockDim.x * blockDim.y;
  for (unsigned i = threadIdx.y * blockDim.x + threadIdx.x; i < rows * cols; i += threads) {
    f(i / cols, i % cols);
  }
}

/// Part `first` becomes the sum of parts first, first + step, ... before `end`.
template <typename T>
__device__ void add_parts(const SummedParts<T>& parts, unsigned first, unsigned end,
                          unsigned step) {
  constexpr unsigned kAtOnce = sizeof(T) == sizeof(float) ? 16 : 8;  // loads in flight
  for_each_value_of_block(parts.rows, parts.cols, [&](unsigned row, unsigned col) {
    T sum = parts.at(first, row, col);
    for (unsigned part = first + step; part < end; part += kAtOnce * step) {
      T next[kAtOnce];
#pragma unroll
      for (unsigned k = 0; k < kAtOnce; ++k) {
        if (part + k * step < end) next[k] = parts.at(part + k * step, row, col);
      }
#pragma unroll
      for (unsigned k = 0; k < kAtOnce; ++k) {
        if (part + k * step < end) sum += next[k];
      }
    }
    parts.at(first, row, col) = sum;
  });
}

/// With parts of which each of `count` blocks, this one the `index`-th, has written its own: true
/// in one of them, for which their sum is part 0. All threads of these blocks call it once, with
/// the counters_of_sum(count) of this sum.
template <typename T>
__device__ bool sum_over_blocks(const SummedParts<T>& parts, unsigned index, unsigned count,
                                unsigned* done_blocks) {
  const unsigned first = index / kSummedBlocks * kSummedBlocks;
  const unsigned end = std::min(first + kSummedBlocks, count);
  if (!is_last_block(done_blocks + 1 + first / kSummedBlocks, end - first)) return false;
  add_parts(parts, first, end, 1);
  if (!is_last_block(done_blocks, counters_of_sum(count) - 1)) return false;
  add_parts(parts, 0, count, kSummedBlocks);
  __syncthreads();
  return true;
}

/// Of parts [gridDim.x, width], one of each block of the grid.
template <typename T>
__device__ bool sum_over_blocks(T* parts, std::int64_t width, unsigned* done_blocks) {
  return sum_over_blocks(SummedParts<T>{parts, width, width, 1, static_cast<unsigned>(width)},
                         blockIdx.x, gridDim.x, done_blocks);
}

}  // namespace serrate
