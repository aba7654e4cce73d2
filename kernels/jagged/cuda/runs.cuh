#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/fours.cuh"
#include "kernels/cuda/row_vector.cuh"
#include "kernels/cuda/search.cuh"
#include "serrate/matrix_batch.h"
#include "src/core/launch.cuh"

// Work over samples whose lengths only the device knows: in runs of rows of one sample, so that a
// long sample is shared by many blocks.
namespace serrate {

/// A matrix, as kernels see it.
template <typename T>
struct Sample {
  T* data;
  std::int64_t rows, cols, stride;
  __device__ T* row(std::int64_t r) const { return data + r * stride; }
};

/// MatrixBatch as kernels see it.
template <typename T>
struct Samples {
  T* data;
  std::int64_t rows, cols, stride, sample_stride;
  const std::int64_t *row_offsets, *col_offsets, *value_offsets;  // or null

  __device__ Sample<T> operator[](std::int64_t b) const {
    const std::int64_t b_rows = row_offsets ? row_offsets[b + 1] - row_offsets[b] : rows;
    const std::int64_t b_cols = col_offsets ? col_offsets[b + 1] - col_offsets[b] : cols;
    if (value_offsets) return {data + value_offsets[b], b_rows, b_cols, b_cols};
    const std::int64_t first = row_offsets ? row_offsets[b] * stride : b * sample_stride;
    return {data + first, b_rows, b_cols, stride};
  }
};

inline const std::int64_t* data_or_null(DeviceSpan<const std::int64_t> offsets) {
  return offsets.empty() ? nullptr : offsets.device_data();
}

template <typename T>
Samples<T> samples_of(const MatrixBatch<T>& batch) {
  return {batch.values.device_data(),
          batch.rows,
          batch.cols,
          batch.stride,
          batch.sample_stride,
          data_or_null(batch.row_offsets),
          data_or_null(batch.col_offsets),
          data_or_null(batch.value_offsets)};
}

/// Rows [begin, end) of a sample, perhaps none.
struct Run {
  std::int64_t sample, begin, end;
};

/// All rows of a batch, or all columns, in runs of 2^log2_length at most. With offsets, sample b
/// has the runs from offsets[b] / length + b on: as many as it needs, or one more, and nobody adds
/// up how many there are before it.
struct Runs {
  const std::int64_t* offsets;      // or null: every sample has
  std::int64_t rows, runs_of_each;  // so many
  std::int64_t batch_size;
  int log2_length;
  std::int64_t likely_rows;  // of all samples, for all that the host knows

  __device__ std::int64_t first(std::int64_t b) const {
    return offsets ? (offsets[b] >> log2_length) + b : b * runs_of_each;
  }
  __device__ std::int64_t size() const { return first(batch_size) - first(0); }
  __device__ Run operator[](std::int64_t i) const {
    i += first(0);
    const auto b = last_at_most(batch_size, i, [this](std::int64_t k) { return first(k); });
    const std::int64_t begin = (i - first(b)) << log2_length;
    const std::int64_t end = offsets ? offsets[b + 1] - offsets[b] : rows;
    return {b, begin, std::min(begin + (std::int64_t{1} << log2_length), end)};
  }
};

template <typename T>
Runs runs_along(DeviceSpan<const std::int64_t> offsets, std::int64_t rows,
                const MatrixBatch<T>& batch, int log2_length) {
  const auto num_values = static_cast<std::int64_t>(batch.values.size());
  std::int64_t likely_rows = rows * batch.batch_size;
  if (!offsets.empty() && !batch.value_offsets.empty()) {  // of squares there are no more
    likely_rows = std::llround(std::sqrt(static_cast<double>(num_values * batch.batch_size)));
  } else if (!offsets.empty()) {
    likely_rows = num_values / std::max<std::int64_t>(batch.stride, 1) + 1;
  }
  const std::int64_t length = std::int64_t{1} << log2_length;
  return {data_or_null(offsets), rows,        (rows + length - 1) / length,
          batch.batch_size,      log2_length, likely_rows};
}
template <typename T>
Runs runs_of_rows(const MatrixBatch<T>& batch, int log2_length) {
  return runs_along(batch.row_offsets, batch.rows, batch, log2_length);
}
template <typename T>
Runs runs_of_columns(const MatrixBatch<T>& batch, int log2_length) {
  return runs_along(batch.col_offsets, batch.cols, batch, log2_length);
}

/// op(run) for all runs, in a block of threads [as many runs at a time, ., .]. A block comes to a
/// barrier in op only if that is one.
template <class Op>
__global__ void __launch_bounds__(256, 1) for_each_run(Runs runs, Op op) {
  const std::int64_t size = runs.size(), step = std::int64_t{gridDim.x} * blockDim.z;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.z + threadIdx.z; i < size; i += step) {
    op(runs[i]);
  }
}

/// Calls f(r, c) for this thread's of the rows of a run and of as many columns, kWidth at a time.
template <int kWidth, typename F>
__device__ void for_each_of_run(const Run& run, std::int64_t cols, F f) {
  for (std::int64_t r = run.begin + threadIdx.y; r < run.end; r += blockDim.y) {
    for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < cols; c += blockDim.x * kWidth) {
      f(r, c);
    }
  }
}

/// A launch over runs, whose grid strides over them; it may have rows of its own.
template <class Op>
void launch_runs(const Op& op, const Runs& runs, dim3 block, const Stream& stream,
                 unsigned grid_rows = 1) {
  constexpr std::int64_t kMostBlocks = 8192;  // several for each place on the device
  if (runs.batch_size == 0) return;
  const std::int64_t likely_runs = (runs.likely_rows >> runs.log2_length) + runs.batch_size;
  const std::int64_t blocks = (likely_runs + block.z - 1) / block.z;
  const dim3 grid(static_cast<unsigned>(std::min(blocks, kMostBlocks)), grid_rows);
  launch(for_each_run<Op>, grid, block, 0, stream, runs, op);
}

/// Lanes of a row whose columns only the device knows.
constexpr std::int64_t kUsualColumns = kWarpSize;

/// For an op that goes over the rows of `of`, which has a warp for each run, in as many rows of
/// threads as columns allow.
template <class Op, typename T>
void launch_over_rows(const Op& op, const MatrixBatch<T>& of, int width, const Stream& stream) {
  constexpr unsigned kRowsOfThread = 4, kWarps = 8;
  dim3 block = rows_of_threads(of.col_offsets.empty() ? of.cols : kUsualColumns, width, kWarpSize);
  const int log2_length = std::countr_zero(kRowsOfThread * block.y);
  block.z = kWarps;
  launch_runs(op, runs_of_rows(of, log2_length), block, stream);
}

/// Whether rows can be read by four columns, wherever a sample begins.
template <typename T>
bool has_vectors(const MatrixBatch<T>& batch) {
  return batch.value_offsets.empty() && batch.stride % 4 == 0 && batch.sample_stride % 4 == 0 &&
         has_vectors(DeviceSpan<const float>(batch.values));
}

/// Calls f with the columns that a thread can take at once in all of these batches, as a
/// std::integral_constant.
template <typename F, typename... Batches>
void with_width(F&& f, const Batches&... batches) {
  if (((has_vectors(batches) && batches.cols % 4 == 0) && ...)) {
    f(std::integral_constant<int, 4>{});
  } else {
    f(std::integral_constant<int, 1>{});
  }
}

}  // namespace serrate
