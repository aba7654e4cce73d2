#pragma once

#include "kernels/cuda/block_sums.cuh"
#include "kernels/dense/cuda/row_group.cuh"

// Sums over the rows of a matrix that a kernel reads, or computes, in a fixed order, in the same
// launch.
namespace serrate {

constexpr std::int64_t kMostColumnSumBlocks = 528;  // four on each of Hopper's 132 multiprocessors

/// sums[c] += the sum of column c of what row(r, cols) gives; without sums the rows alone. A group
/// of threads, four columns each, keeps the sums of its rows in registers. parts is [blocks, cols].
template <typename Row>
__global__ void __launch_bounds__(kGroupThreads)
    add_column_sums(Row row, std::int64_t rows, std::int64_t cols, float* parts, float* sums,
                    unsigned* done_blocks) {
  typename Row::Part sum{};
  for_each_row(rows, cols, [&](std::int64_t r, std::int64_t size) {
    const auto add = [](float a, float b) { return a + b; };
    sum = map_row(add, sum, row(r, size));
  });
  if (!sums) return;
  write_sum_of_groups(sum, parts + blockIdx.x * cols, cols);
  if (!sum_over_blocks(parts, cols, done_blocks)) return;
  for_each_column_of_block(cols, [&](std::int64_t c) { sums[c] += parts[c]; });
}

/// make(access, begin, end) makes a functor, of a row and its columns to a RowPart, for columns
/// [begin, end) of these matrices of one shape, up to 1,024 columns a launch. sums has as many
/// columns, or none.
template <typename Make, typename First, typename... Matrices>
void launch_column_sums(DeviceSpan<float> sums, const Stream& stream, Make make, const First& first,
                        const Matrices&... others) {
  constexpr std::int64_t kMostColumns = 4 * kGroupThreads;
  if (first.rows == 0) return;
  for (std::int64_t begin = 0; begin < first.cols; begin += kMostColumns) {
    const std::int64_t end = std::min(begin + kMostColumns, first.cols), cols = end - begin;
    std::int64_t lanes = 1;
    while (lanes * 4 < cols) lanes *= 2;
    const std::int64_t groups = kGroupThreads / lanes;
    const std::int64_t blocks =
        std::min((first.rows + 2 * groups - 1) / (2 * groups), kMostColumnSumBlocks);
    Buffer<float> parts(sums.empty() ? 0 : blocks * cols, stream);
    with_access(
        [&](auto access) {
          const auto row = make(access, begin, end);
          launch(add_column_sums<std::remove_const_t<decltype(row)>>, static_cast<unsigned>(blocks),
                 dim3(static_cast<unsigned>(lanes), static_cast<unsigned>(groups)),
                 shared_bytes(cols), stream, row, first.rows, cols, parts.device_data(),
                 sums.empty() ? nullptr : sums.device_data() + begin,
                 done_blocks_of(1, blocks, stream));
        },
        first.columns(begin, end), others.columns(begin, end)...);
  }
}

}  // namespace serrate
