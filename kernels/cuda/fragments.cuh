#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "kernels/cuda/primitives.cuh"

// Tiles of bfloat16 or float16 rows in shared memory, and products of a warp's 16 rows of them on
// tensor cores. A lane has the rows g = lane / 4 and g + 8 of the 16, and of every 8 columns 2q and
// 2q + 1, q = lane % 4 (primitives.cuh).
namespace serrate {

inline constexpr int kWarpRows = 16;

/// Rows of kDim columns. Chunks of 8 columns, 16 bytes, are swapped within a row so that those of
/// the same columns in 8 rows that follow one another are in different banks.
template <int kDim, class Half = __nv_bfloat16>
struct SwizzledRows {
  static constexpr int kChunks = kDim / 8;
  Half* data;

  /// Where a chunk is; that of chunk ^ c is there ^ 8 c.
  __device__ static int place(int row, int chunk) {
    constexpr int kRowsALine = kChunks < 8 ? 8 / kChunks : 1;
    constexpr int kSwapped = kChunks < 8 ? kChunks : 8;
    return row * kDim + (chunk ^ (row / kRowsALine % kSwapped)) * 8;
  }
  __device__ Half* at(int row, int chunk) const { return data + place(row, chunk); }
};

__device__ inline int lane_index() {
  return static_cast<int>(threadIdx.x + threadIdx.y * blockDim.x) % 32;
}

/// The same where the compiler is not to compute ahead what depends on it: there are no registers
/// to keep that in. The warp calls it.
__device__ inline int lane_index_here() {
  return __shfl_sync(~0u, lane_index(), lane_index());
}

/// A lane's part of 16 rows x 8 kBlocks columns: value i of block n is in row g + 8 (i / 2) and
/// column 8 n + 2 q + i % 2.
template <int kBlocks>
using Fragment = float[kBlocks][4];

/// d += a b of halves in pairs, and pairs from floats, rounded to nearest, and to floats. Beyond
/// the largest float16 they are infinite.
template <class Half>
struct Mma;
template <>
struct Mma<__nv_bfloat16> {
  __device__ void operator()(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2]) const {
    mma_m16n8k16_bf16(d, a, b);
  }
  __device__ static std::uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
  }
  __device__ static float2 unpack(std::uint32_t pair) {
    return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)};
  }
};
template <>
struct Mma<__half> {
  __device__ void operator()(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2]) const {
    mma_m16n8k16_f16(d, a, b);
  }
  __device__ static std::uint32_t pack(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&pair);
  }
  __device__ static float2 unpack(std::uint32_t pair) {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  }
};

/// scores = 16 rows times the transpose of `count` rows of keys, rounded up to 16; over kDim. Rows
/// that are kTerms as long are multiplied part by part. Product takes 32 bytes of each row at once.
template <int kDim, int kBlocks, class Half, class Product = Mma<Half>, int kTerms = 1>
__device__ void multiply_rows(SwizzledRows<kTerms * kDim, Half> rows, int first_row,
                              SwizzledRows<kDim, Half> keys, int first_key, int count,
                              Fragment<kBlocks>& scores) {
#pragma unroll
  for (auto& block : scores) {
#pragma unroll
    for (float& x : block) x = 0;
  }
  const int lane = lane_index();
  const int row = rows.place(first_row + lane % 16, lane / 16);
  const int key = keys.place(first_key + lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll 1
  for (int k = 0; k < kTerms * kDim / 16; ++k) {
    std::uint32_t a[4];
    load_matrices(a, rows.data + (row ^ 16 * k));
#pragma unroll
    for (int n = 0; n < kBlocks / 2; ++n) {
      if (n * 16 >= count) break;
      std::uint32_t b[4];
      load_matrices(b, keys.data + (key ^ 16 * (k % (kDim / 16))) + n * 16 * kDim);
      Product{}(scores[2 * n], a, {b[0], b[1]});
      Product{}(scores[2 * n + 1], a, {b[2], b[3]});
    }
  }
}

/// sums (16 rows, kColumns columns) += a (16 rows x 16) times 16 rows of values from first_row on,
/// of which it has the columns from first_column on, a multiple of kColumns.
template <int kDim, int kColumns, class Half>
__device__ void add_product(const std::uint32_t (&a)[4], SwizzledRows<kDim, Half> values,
                            int first_row, int first_column, Fragment<kColumns / 8>& sums) {
  const int lane = lane_index();
  const int value = values.place(first_row + lane % 16, lane / 16);
#pragma unroll
  for (int n = 0; n < kColumns / 16; ++n) {
    std::uint32_t b[4];
    load_matrices_transposed(b, values.data + (value ^ (first_column + 16 * n)));
    Mma<Half>{}(sums[2 * n], a, {b[0], b[1]});
    Mma<Half>{}(sums[2 * n + 1], a, {b[2], b[3]});
  }
}

/// sums += weights, rounded to the type of the values, times `count` rows of these.
template <int kDim, int kColumns, int kBlocks, class Half>
__device__ void add_weighted_rows(const Fragment<kBlocks>& weights, SwizzledRows<kDim, Half> values,
                                  int first_key, int count, int first_column,
                                  Fragment<kColumns / 8>& sums) {
#pragma unroll
  for (int k = 0; k < kBlocks / 2; ++k) {
    if (k * 16 >= count) break;
    const auto& low = weights[2 * k];
    const auto& high = weights[2 * k + 1];
    const auto pack = [](float x, float y) { return Mma<Half>::pack(x, y); };
    const std::uint32_t a[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]),
                                pack(high[2], high[3])};
    add_product<kDim, kColumns>(a, values, first_key + k * 16, first_column, sums);
  }
}

/// sums (of 16 rows) += `count` columns of weights, from row `row` on, times as many rows of values
/// from first_row on, of which it has the columns from first_column on.
template <int kDim, int kColumns, class Half>
__device__ void add_staged_rows(SwizzledRows<64, Half> weights, int row,
                                SwizzledRows<kDim, Half> values, int first_row, int count,
                                int first_column, Fragment<kColumns / 8>& sums) {
  const int lane = lane_index();
#pragma unroll 1
  for (int k = 0; k < count; k += 16) {
    std::uint32_t a[4];
    load_matrices(a, weights.at(row + lane % 16, k / 8 + lane / 16));
    add_product<kDim, kColumns>(a, values, first_row + k, first_column, sums);
  }
}

/// sums (of 16 keys) += the transpose of `count` rows of weights, columns `key` to key + 15, times
/// as many rows of values, of which it has the columns from first_column on; both begin at
/// first_row.
template <int kDim, int kColumns, class Half>
__device__ void add_transposed_rows(SwizzledRows<64, Half> weights, SwizzledRows<kDim, Half> values,
                                    int first_row, int count, int key, int first_column,
                                    Fragment<kColumns / 8>& sums) {
  const int lane = lane_index();
  const int row = first_row + lane / 16 * 8 + lane % 8;
  for (int k = 0; k < count; k += 16) {
    std::uint32_t a[4];
    load_matrices_transposed(a, weights.at(row + k, key / 8 + lane / 8 % 2));
    add_product<kDim, kColumns>(a, values, first_row + k, first_column, sums);
  }
}

/// Rounds a warp's 16 rows x 8 kBlocks columns, to chunks of shared memory.
template <int kDim, int kBlocks, class Half>
__device__ void stage_rows(const Fragment<kBlocks>& values, SwizzledRows<kDim, Half> stage,
                           int first_row, int first_chunk, int lane = lane_index()) {
  const int g = lane / 4, q = lane % 4;
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      reinterpret_cast<std::uint32_t*>(stage.at(first_row + g + 8 * r, first_chunk + n))[q] =
          Mma<Half>::pack(values[n][2 * r], values[n][2 * r + 1]);
    }
  }
}

}  // namespace serrate
