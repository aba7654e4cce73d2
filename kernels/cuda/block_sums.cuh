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
constexpr unsigned kMostSummedBlocks = 1024;

/// How many blocks of a stream's running kernel are done, of all and of each 16; zeros between
/// kernels.
class DoneBlocks {
 public:
  explicit DoneBlocks(const Stream& stream)
      : counts_(Buffer<unsigned>::zeros(1 + kMostSummedBlocks / kSummedBlocks, stream)) {}
  unsigned* device_data() { return counts_.device_data(); }

 private:
  Buffer<unsigned> counts_;
};

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

/// parts[0] becomes the sum of rows 0, step, 2 step, ... of parts, [rows, width].
template <typename T>
__device__ void add_parts(T* parts, std::int64_t width, unsigned rows, unsigned step) {
  const unsigned threads = blockDim.x * blockDim.y;
  for (std::int64_t c = threadIdx.y * blockDim.x + threadIdx.x; c < width; c += threads) {
    T sum = parts[c];
#pragma unroll 16
    for (unsigned r = step; r < rows; r += step) sum += parts[r * width + c];
    parts[c] = sum;
  }
}

/// With parts [gridDim.x, width], of which each block has written its row: true in one block, for
/// which their sum is in row 0. All threads of all blocks of a grid of at most kMostSummedBlocks
/// call it once.
template <typename T>
__device__ bool sum_over_blocks(T* parts, std::int64_t width, unsigned* done_blocks) {
  const unsigned first = blockIdx.x / kSummedBlocks * kSummedBlocks;
  const unsigned size = std::min(unsigned{kSummedBlocks}, gridDim.x - first);
  if (!is_last_block(done_blocks + 1 + first / kSummedBlocks, size)) return false;
  add_parts(parts + first * width, width, size, 1);
  if (!is_last_block(done_blocks, (gridDim.x + kSummedBlocks - 1) / kSummedBlocks)) return false;
  add_parts(parts, width, gridDim.x, kSummedBlocks);
  __syncthreads();
  return true;
}

}  // namespace serrate
