#pragma once

#include <cuda_runtime.h>

#include <algorithm>
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

/// last_at_most where the answer is perhaps near `guess`, one of the numbers below `count`.
template <typename ValueAt>
__device__ std::int64_t last_at_most_near(std::int64_t guess, std::int64_t count,
                                          std::int64_t wanted, ValueAt value_at) {
  std::int64_t low = guess, high = guess, step = 1;
  if (value_at(guess) <= wanted) {
    for (; low + step < count && value_at(low + step) <= wanted; step *= 2) low += step;
    high = std::min(low + step, count);
  } else {
    for (; high - step > 0 && value_at(high - step) > wanted; step *= 2) high -= step;
    low = std::max<std::int64_t>(high - step, 0);
  }
  return low + last_at_most(high - low, wanted, [&](std::int64_t i) { return value_at(low + i); });
}

/// The bag that holds value `first` + threadIdx.x of a jagged array, and the number of its first
/// value; behind the last value the last bag, without bags -1. All threads of a block of
/// kSearchBlock call it, once.
__device__ inline Found bag_in_block(const std::int64_t* offsets, std::int64_t num_bags,
                                     std::int64_t first) {
  if (num_bags == 0) return {-1, -1};
  __shared__ std::int64_t ends[2], begin;
  if (threadIdx.x < 2) {
    const std::int64_t start = offsets[0], size = offsets[num_bags] - start;
    const std::int64_t wanted = first + threadIdx.x * (kSearchBlock - 1);
    // Where bags are of one length it is this one. Wrong offsets may leave no values.
    const auto guess = static_cast<std::int64_t>(
        static_cast<double>(wanted) / static_cast<double>(std::max<std::int64_t>(size, 1)) *
        static_cast<double>(num_bags));
    ends[threadIdx.x] = last_at_most_near(std::min(guess, num_bags - 1), num_bags, start + wanted,
                                          [=](std::int64_t bag) { return offsets[bag]; });
    if (threadIdx.x == 0) begin = start;
  }
  __syncthreads();
  const Found bag = find_in_block(offsets + ends[0], ends[1] + 1 - ends[0],
                                  begin + first + static_cast<std::int64_t>(threadIdx.x));
  return {ends[0] + bag.index, bag.value - begin};
}

}  // namespace serrate
