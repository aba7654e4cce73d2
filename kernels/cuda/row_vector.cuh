#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "serrate/any_matrix.h"

// Columns of a row that one lane reads and writes at once: 16 bytes where rows are aligned so.
namespace serrate {

constexpr int kWarpSize = 32;

template <int kWidth>
struct alignas(kWidth * sizeof(float)) RowVector {
  float value[kWidth];
};

template <int kWidth>
__device__ RowVector<kWidth> load(const float* from) {
  return *reinterpret_cast<const RowVector<kWidth>*>(from);
}

template <int kWidth>
__device__ void store(const RowVector<kWidth>& vector, float* to) {
  *reinterpret_cast<RowVector<kWidth>*>(to) = vector;
}

/// sum += weight * row
template <int kWidth>
__device__ void multiply_add(float weight, const RowVector<kWidth>& row, RowVector<kWidth>& sum) {
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum.value[k] = fmaf(weight, row.value[k], sum.value[k]);
}

/// Whether rows can be read by four columns.
inline bool aligned_by_four(const InputMatrix& rows) {
  const auto address = reinterpret_cast<std::uintptr_t>(rows.device_data());
  return address % static_cast<std::uintptr_t>(4 * size_of(rows.type)) == 0 &&
         rows.stride % 4 == 0 && rows.cols % 4 == 0;
}

/// A block of `size` threads: rows of up to a warp, as many as columns need at `width` a thread.
inline dim3 rows_of_threads(std::int64_t cols, std::int64_t width, int size) {
  unsigned lanes = kWarpSize;
  while (lanes > 1 && lanes / 2 * width >= cols) lanes /= 2;
  return dim3(lanes, static_cast<unsigned>(size) / lanes);
}

}  // namespace serrate
