#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/search.cuh"

// Searches of all threads of a block, one each: what they search in is read once, all together.
namespace serrate {

/// Threads of a block whose searches these are. More share what finding their stretch costs.
constexpr int kSearchBlock = 512;

struct Found {
  std::int64_t index, value;
};

/// For each thread the last of `count` ascending values that is at most `wanted`; the first one is.
/// All threads of a block of kSearchBlock call it.
__device__ inline Found find_in_block(const std::int64_t* values, std::int64_t count,
                                      std::int64_t wanted) {
  // Where there are more, less is read by searching in them than by copying them.
  constexpr std::int64_t kMostCopied = 2 * kSearchBlock;
  __shared__ std::int64_t copy[kMostCopied];
  if (count > kMostCopied) {
    const std::int64_t found =
        last_at_most(count, wanted, [=](std::int64_t i) { return values[i]; });
    return {found, values[found]};
  }
  __syncthreads();  // a search before this one is over
  for (std::int64_t i = threadIdx.x; i < count; i += kSearchBlock) copy[i] = values[i];
  __syncthreads();
  const std::int64_t found = last_at_most(count, wanted, [](std::int64_t i) { return copy[i]; });
  return {found, copy[found]};
}

/// The bag that holds value `first` + threadIdx.x of a jagged array, and the number of its first
/// value; behind the last value the last bag, without bags -1. All threads of a block of
/// kSearchBlock call it, once.
__device__ inline Found bag_in_block(const std::int64_t* offsets, std::int64_t num_bags,
                                     std::int64_t first) {
  if (num_bags == 0) return {-1, -1};
  __shared__ std::int64_t ends[2], begin;
  if (threadIdx.x < 2) {
    const std::int64_t start = offsets[0];
    const std::int64_t wanted = start + first + threadIdx.x * (kSearchBlock - 1);
    ends[threadIdx.x] =
        last_at_most(num_bags, wanted, [=](std::int64_t bag) { return offsets[bag]; });
    if (threadIdx.x == 0) begin = start;
  }
  __syncthreads();
  const Found bag = find_in_block(offsets + ends[0], ends[1] + 1 - ends[0],
                                  begin + first + static_cast<std::int64_t>(threadIdx.x));
  return {ends[0] + bag.index, bag.value - begin};
}

}  // namespace serrate
