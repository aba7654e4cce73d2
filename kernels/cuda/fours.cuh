#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "serrate/bfloat16.h"
#include "serrate/device_span.h"
#include "src/core/launch.cuh"

// A thread reads and writes four columns of a row at once: 16 bytes, or 8 of bfloat16, where the
// rows are aligned so.
namespace serrate {

enum class Access { kVectors, kScalars };

struct alignas(16) Four {
  float value[4];
};

__device__ inline Four& operator+=(Four& sum, const Four& four) {
#pragma unroll
  for (int k = 0; k < 4; ++k) sum.value[k] += four.value[k];
  return sum;
}

struct alignas(8) FourHalves {
  __nv_bfloat16 value[4];
};

/// A matrix as kernels see it.
template <typename T>
struct Rows {
  T* data;  // or null
  std::int64_t stride;
  __device__ T* row(std::int64_t r) const { return data + r * stride; }
};

template <typename T>
Rows<T> rows_of(const DeviceMatrix<T>& matrix) {
  return {matrix.device_data(), matrix.stride};
}

/// Columns c to c + 3; what is past the last one is 0.
template <Access kAccess>
__device__ Four load_four(const float* row, std::int64_t c, std::int64_t cols) {
  if (kAccess == Access::kVectors && c + 4 <= cols) return *reinterpret_cast<const Four*>(row + c);
  Four four{};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (c + k < cols) four.value[k] = row[c + k];
  }
  return four;
}

template <Access kAccess>
__device__ void store_four(const Four& four, float* row, std::int64_t c, std::int64_t cols) {
  if (kAccess == Access::kVectors && c + 4 <= cols) {
    *reinterpret_cast<Four*>(row + c) = four;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (c + k < cols) row[c + k] = four.value[k];
  }
}

/// The same of bfloat16, to which a store rounds to nearest.
template <Access kAccess>
__device__ Four load_four(const BFloat16* row, std::int64_t c, std::int64_t cols) {
  const auto* const from = reinterpret_cast<const __nv_bfloat16*>(row) + c;
  Four four{};
  if (kAccess == Access::kVectors && c + 4 <= cols) {
    const FourHalves halves = *reinterpret_cast<const FourHalves*>(from);
#pragma unroll
    for (int k = 0; k < 4; ++k) four.value[k] = __bfloat162float(halves.value[k]);
    return four;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (c + k < cols) four.value[k] = __bfloat162float(from[k]);
  }
  return four;
}

template <Access kAccess>
__device__ void store_four(const Four& four, BFloat16* row, std::int64_t c, std::int64_t cols) {
  auto* const to = reinterpret_cast<__nv_bfloat16*>(row) + c;
  FourHalves halves;
#pragma unroll
  for (int k = 0; k < 4; ++k) halves.value[k] = __float2bfloat16_rn(four.value[k]);
  if (kAccess == Access::kVectors && c + 4 <= cols) {
    *reinterpret_cast<FourHalves*>(to) = halves;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (c + k < cols) to[k] = halves.value[k];
  }
}

/// f(a, b, ...) of each of the four columns.
template <typename F, typename... Fours>
__device__ Four map_four(F f, const Fours&... fours) {
  Four result;
#pragma unroll
  for (int k = 0; k < 4; ++k) result.value[k] = f(fours.value[k]...);
  return result;
}

template <typename T>
bool has_vectors(const DeviceSpan<T>& s) {
  return reinterpret_cast<std::uintptr_t>(s.device_data()) % (4 * sizeof(T)) == 0;
}
template <typename T>
bool has_vectors(const DeviceMatrix<T>& m) {
  return has_vectors(DeviceSpan<T>(m.device_data(), 0)) && (m.stride % 4 == 0 || m.rows <= 1);
}
template <typename T>
bool has_vectors(std::span<const DeviceMatrix<T>> matrices) {
  return std::ranges::all_of(matrices, [](const auto& matrix) { return has_vectors(matrix); });
}

/// Calls f with the access that all of these allow, as a std::integral_constant.
template <typename F, typename... Arguments>
void with_access(F&& f, const Arguments&... arguments) {
  if ((has_vectors(arguments) && ...)) {
    f(std::integral_constant<Access, Access::kVectors>{});
  } else {
    f(std::integral_constant<Access, Access::kScalars>{});
  }
}

/// Calls f(r, c) for each four columns of each row. A row of a block's threads has a row, and its
/// blocks stride over the columns.
template <typename F>
__global__ void for_each_four(std::int64_t rows, std::int64_t cols, F f) {
  const std::int64_t r = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (r >= rows) return;
  const std::int64_t step = std::int64_t{gridDim.y} * blockDim.x * 4;
  for (std::int64_t c = (std::int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * 4; c < cols;
       c += step) {
    f(r, c);
  }
}

template <typename F>
void launch_for_each_four(std::int64_t rows, std::int64_t cols, const F& f, const Stream& stream) {
  constexpr std::int64_t kThreads = 256, kMostGridRows = 65535;
  if (rows == 0 || cols == 0) return;
  std::int64_t lanes = kThreads;
  while (lanes > 1 && lanes / 2 * 4 >= cols) lanes /= 2;
  const std::int64_t rows_per_block = kThreads / lanes, cols_per_block = lanes * 4;
  const dim3 grid(
      static_cast<unsigned>((rows + rows_per_block - 1) / rows_per_block),
      static_cast<unsigned>(std::min((cols + cols_per_block - 1) / cols_per_block, kMostGridRows)));
  const dim3 block(static_cast<unsigned>(lanes), static_cast<unsigned>(rows_per_block));
  launch(for_each_four<F>, grid, block, 0, stream, rows, cols, f);
}

}  // namespace serrate
