#pragma once

#include "kernels/cuda/fours.cuh"
#include "kernels/cuda/primitives.cuh"
#include "serrate/error.h"

// Ops whose rows need sums over themselves: a group of threads reads a row once, into registers. A
// group is a row of a block's threads: a part of a warp, or for long rows several warps.
namespace serrate {

constexpr int kGroupThreads = 256;
constexpr std::int64_t kMostGroupColumns = 16 * kGroupThreads;

/// The columns of a group's row that one thread has: columns 4 (i blockDim.x + threadIdx.x) to the
/// third behind that are fours[i].
template <int kFours, Access kAccess>
struct RowPart {
  Four fours[kFours];

  __device__ static std::int64_t column(int i) {
    return (std::int64_t{i} * blockDim.x + threadIdx.x) * 4;
  }
  /// What is past the last column is 0.
  template <typename T>
  __device__ static RowPart load(const T* row, std::int64_t cols) {
    RowPart part;
#pragma unroll
    for (int i = 0; i < kFours; ++i) part.fours[i] = load_four<kAccess>(row, column(i), cols);
    return part;
  }
  template <typename T>
  __device__ void store(T* row, std::int64_t cols) const {
#pragma unroll
    for (int i = 0; i < kFours; ++i) store_four<kAccess>(fours[i], row, column(i), cols);
  }
};

/// f(a, b, ...) of each column.
template <int kFours, Access kAccess, typename F, typename... Parts>
__device__ RowPart<kFours, kAccess> map_row(F f, const RowPart<kFours, kAccess>& first,
                                            const Parts&... others) {
  RowPart<kFours, kAccess> result;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    result.fours[i] = map_four(f, first.fours[i], others.fours[i]...);
  }
  return result;
}

/// The sum over a row, for all of its group; all threads of the block call it.
template <int kFours, Access kAccess>
__device__ float sum_of_row(const RowPart<kFours, kAccess>& part) {
  constexpr unsigned kWarp = 32;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const Four& four = part.fours[i];
    sum += (four.value[0] + four.value[1]) + (four.value[2] + four.value[3]);
  }
  for (unsigned lanes = std::min<unsigned>(blockDim.x, kWarp) / 2; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(0xffffffff, sum, static_cast<int>(lanes));
  }
  if (blockDim.x <= kWarp) return sum;
  __shared__ float of_warps[kGroupThreads / kWarp];
  const unsigned warps = blockDim.x / kWarp;
  float* const of_group = of_warps + threadIdx.y * warps;
  __syncthreads();  // the sums of the call before have been read
  if (threadIdx.x % kWarp == 0) of_group[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = 0;
  for (unsigned warp = 0; warp < warps; ++warp) sum += of_group[warp];
  return sum;
}

/// Calls f(c) for this thread's of the columns that the block has together.
template <typename F>
__device__ void for_each_column_of_block(std::int64_t cols, F f) {
  const unsigned threads = blockDim.x * blockDim.y;
  for (std::int64_t c = threadIdx.y * blockDim.x + threadIdx.x; c < cols; c += threads) f(c);
}

/// A vector of so many floats in shared memory, and the next one aligned behind it.
__host__ __device__ inline std::int64_t shared_floats(std::int64_t cols) {
  return (cols + 3) / 4 * 4;
}
inline std::size_t shared_bytes(std::int64_t cols) {
  return static_cast<std::size_t>(shared_floats(cols)) * sizeof(float);
}

/// to[c] = the sum of the parts of the block's groups, in their order; by all of the block, which
/// uses the first shared_bytes(cols) of its dynamic shared memory.
template <int kFours, Access kAccess>
__device__ void write_sum_of_groups(const RowPart<kFours, kAccess>& part, float* to,
                                    std::int64_t cols) {
  using Part = RowPart<kFours, kAccess>;
  float* const sums = dynamic_shared<float>();
  const auto add = [](float a, float b) { return a + b; };
  for (unsigned group = 0; group < blockDim.y; ++group) {
    __syncthreads();
    if (threadIdx.y != group) continue;
    const Part before = group == 0 ? Part{} : Part::load(sums, cols);
    map_row(add, before, part).store(sums, cols);
  }
  __syncthreads();
  for_each_column_of_block(cols, [&](std::int64_t c) { to[c] = sums[c]; });
}

/// Calls f(r, cols) for the rows of this thread's group, the blocks' groups striding over all of
/// them: as often for each group of a block, the last times perhaps with a row behind the last, of
/// no columns.
template <typename F>
__device__ void for_each_row(std::int64_t rows, std::int64_t cols, F f) {
  for (std::int64_t first = std::int64_t{blockIdx.x} * blockDim.y; first < rows;
       first += std::int64_t{gridDim.x} * blockDim.y) {
    const std::int64_t r = first + threadIdx.y;
    f(r, r < rows ? cols : 0);
  }
}

/// How a kernel over the rows of groups is launched.
struct GroupLaunch {
  unsigned blocks;
  dim3 block;
};

/// Calls f(fours, access, launch), the first two as std::integral_constants, for rows of so many
/// columns, which are those of the other arguments, matrices or spans; with at most so many blocks.
template <typename F, typename... Arguments>
void with_row_groups(std::int64_t rows, std::int64_t cols, std::int64_t most_blocks, F&& f,
                     const Arguments&... arguments) {
  check(cols <= kMostGroupColumns, "rows of more than 4096 columns are too long for this GPU op");
  std::int64_t lanes = 1;
  while (lanes * 4 < cols && (lanes < 32 || lanes * 16 < cols)) lanes *= 2;
  const std::int64_t groups = kGroupThreads / lanes;
  const GroupLaunch shape{
      static_cast<unsigned>(std::min((rows + groups - 1) / groups, most_blocks)),
      dim3(static_cast<unsigned>(lanes), static_cast<unsigned>(groups))};
  with_access(
      [&](auto access) {
        const std::int64_t fours = (cols + lanes * 4 - 1) / (lanes * 4);
        if (fours <= 1) return f(std::integral_constant<int, 1>{}, access, shape);
        if (fours <= 2) return f(std::integral_constant<int, 2>{}, access, shape);
        return f(std::integral_constant<int, 4>{}, access, shape);
      },
      arguments...);
}

}  // namespace serrate
