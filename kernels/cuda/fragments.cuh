#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/primitives.cuh"

// Tiles of bfloat16, float16 or float32 rows in shared memory, and products of a warp's 16 rows of
// them on tensor cores; float32 is rounded to tf32 on the way. `Half` is any of them. A lane has
// the rows g = lane / 4 and g + 8 of the 16, and of every 8 columns 2q and 2q + 1, q = lane % 4
// (primitives.cuh).
namespace serrate {

inline constexpr int kWarpRows = 16;

template <class Half>
inline constexpr bool kIsTf32 = std::is_same_v<Half, float>;

/// Columns of 16 bytes.
template <class Half>
inline constexpr int kChunkSize = 16 / static_cast<int>(sizeof(Half));
/// Columns that an mma sums over, 32 bytes of a row in every type.
template <class Half>
inline constexpr int kMmaDepth = 2 * kChunkSize<Half>;

/// Rows of kDim columns. Chunks of 16 bytes are swapped within a row so that those of the same
/// columns in 8 rows that follow one another are in different banks. Of float32 so are pairs of
/// neighbouring chunks in rows 0 to 3 and in rows 4 to 7, and in the even rows and in the odd ones,
/// of 8: what a warp reads and writes of them a float or two a lane.
template <int kDim, class Half = __nv_bfloat16>
struct SwizzledRows {
  static constexpr int kChunks = kDim / kChunkSize<Half>;
  Half* data;

  /// Where a chunk is; that of chunk ^ c is there ^ kChunkSize c.
  __device__ static int place(int row, int chunk) {
    constexpr int kRowsALine = kChunks < 8 ? 8 / kChunks : 1;
    constexpr int kSwapped = kChunks < 8 ? kChunks : 8;
    const int swapped = kIsTf32<Half> ? row ^ row % 2 * 4 : row / kRowsALine;
    return row * kDim + (chunk ^ swapped % kSwapped) * kChunkSize<Half>;
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

/// d += a b of 8 columns of float32, which are rounded.
template <>
struct Mma<float> {
  __device__ void operator()(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2]) const {
    mma_m16n8k8_tf32(d, a, b);
  }
};

/// Rows of float32, as ldmatrix has read them, become what the mma multiplies; halves are that.
template <class Half>
__device__ void round_fragment(std::uint32_t (&fragment)[4]) {
  if constexpr (kIsTf32<Half>) {
#pragma unroll
    for (std::uint32_t& x : fragment) x = round_to_tf32(__uint_as_float(x));
  }
}

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
  constexpr int kDepth = kMmaDepth<Half>;
#pragma unroll 1
  for (int k = 0; k < kTerms * kDim / kDepth; ++k) {
    std::uint32_t a[4];
    load_matrices(a, rows.data + (row ^ kDepth * k));
    round_fragment<Half>(a);
#pragma unroll
    for (int n = 0; n < kBlocks / 2; ++n) {
      if (n * 16 >= count) break;
      std::uint32_t b[4];
      load_matrices(b, keys.data + (key ^ kDepth * (k % (kDim / kDepth))) + n * 16 * kDim);
      round_fragment<Half>(b);
      Product{}(scores[2 * n], a, {b[0], b[1]});
      Product{}(scores[2 * n + 1], a, {b[2], b[3]});
    }
  }
}

/// sums (16 rows, kColumns columns) += a (16 rows x kMmaDepth) times as many rows of values from
/// first_row on, of which it has the columns from first_column on, a multiple of kColumns. Of
/// float32, a has the columns 2q and 2q + 1 in the places of q and q + 4, as weights of a lane are.
template <int kDim, int kColumns, class Half>
__device__ void add_product(const std::uint32_t (&a)[4], SwizzledRows<kDim, Half> values,
                            int first_row, int first_column, Fragment<kColumns / 8>& sums) {
  const int lane = lane_index();
  if constexpr (kIsTf32<Half>) {
    const int g = lane / 4, row = first_row + lane % 4 * 2;
    const int even = values.place(row, g / 4) + g % 4, odd = values.place(row + 1, g / 4) + g % 4;
    static_assert(kColumns % 32 == 0);
    // Chunks are swapped within 32 columns: so many have two addresses together.
#pragma unroll
    for (int swapped = 0; swapped < 4; ++swapped) {
      const float* const of_even = values.data + (even ^ 8 * swapped) + first_column;
      const float* const of_odd = values.data + (odd ^ 8 * swapped) + first_column;
#pragma unroll
      for (int n = swapped; n < kColumns / 8; n += 4) {
        const int column = 8 * (n - swapped);
        Mma<Half>{}(sums[n], a, {round_to_tf32(of_even[column]), round_to_tf32(of_odd[column])});
      }
    }
  } else {
    const int value = values.place(first_row + lane % 16, lane / 16);
#pragma unroll
    for (int n = 0; n < kColumns / 16; ++n) {
      std::uint32_t b[4];
      load_matrices_transposed(b, values.data + (value ^ (first_column + 16 * n)));
      Mma<Half>{}(sums[2 * n], a, {b[0], b[1]});
      Mma<Half>{}(sums[2 * n + 1], a, {b[2], b[3]});
    }
  }
}

/// A lane's kMmaDepth weights from kMmaDepth * k on, rounded, as add_product wants them.
template <class Half, int kBlocks>
__device__ void round_weights(const Fragment<kBlocks>& weights, int k, std::uint32_t (&a)[4]) {
  if constexpr (kIsTf32<Half>) {
    const auto& x = weights[k];
    a[0] = round_to_tf32(x[0]), a[1] = round_to_tf32(x[2]);
    a[2] = round_to_tf32(x[1]), a[3] = round_to_tf32(x[3]);
  } else {
    const auto& low = weights[2 * k];
    const auto& high = weights[2 * k + 1];
    a[0] = Mma<Half>::pack(low[0], low[1]), a[1] = Mma<Half>::pack(low[2], low[3]);
    a[2] = Mma<Half>::pack(high[0], high[1]), a[3] = Mma<Half>::pack(high[2], high[3]);
  }
}

/// sums += weights, rounded to the type of the values, times `count` rows of these.
template <int kDim, int kColumns, int kBlocks, class Half>
__device__ void add_weighted_rows(const Fragment<kBlocks>& weights, SwizzledRows<kDim, Half> values,
                                  int first_key, int count, int first_column,
                                  Fragment<kColumns / 8>& sums) {
#pragma unroll
  for (int k = 0; k < kBlocks * 8 / kMmaDepth<Half>; ++k) {
    if (k * kMmaDepth<Half> >= count) break;
    std::uint32_t a[4];
    round_weights<Half, kBlocks>(weights, k, a);
    add_product<kDim, kColumns>(a, values, first_key + k * kMmaDepth<Half>, first_column, sums);
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
  for (int k = 0; k < count; k += kMmaDepth<Half>) {
    std::uint32_t a[4];
    if constexpr (kIsTf32<Half>) {
      const int chunk = k / 4 + lane % 4 / 2, pair = lane % 2;
      const auto pair_of = [&](int r) {
        return reinterpret_cast<const float2*>(weights.at(row + lane / 4 + r, chunk))[pair];
      };
      const float2 x = pair_of(0), y = pair_of(8);
      const Fragment<1> of_lane = {{x.x, x.y, y.x, y.y}};
      round_weights<Half, 1>(of_lane, 0, a);
    } else {
      load_matrices(a, weights.at(row + lane % 16, k / 8 + lane / 16));
    }
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
  for (int k = 0; k < count; k += kMmaDepth<Half>) {
    std::uint32_t a[4];
    if constexpr (kIsTf32<Half>) {
      const int g = lane / 4, row = first_row + k + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = round_to_tf32(weights.at(row + i / 2, key / 4 + i % 2 * 2 + g / 4)[g % 4]);
      }
    } else {
      const int row = first_row + lane / 16 * 8 + lane % 8;
      load_matrices_transposed(a, weights.at(row + k, key / 8 + lane / 8 % 2));
    }
    add_product<kDim, kColumns>(a, values, first_row + k, first_column, sums);
  }
}

/// A warp's 16 rows x 8 kBlocks columns, rounded to the type of the rows, to their columns from
/// 8 first_block on.
template <int kDim, int kBlocks, class Half>
__device__ void stage_rows(const Fragment<kBlocks>& values, SwizzledRows<kDim, Half> stage,
                           int first_row, int first_block, int lane = lane_index()) {
  const int g = lane / 4, q = lane % 4;
#pragma unroll
  for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first_row + g + 8 * r, block = first_block + n;
      const float low = values[n][2 * r], high = values[n][2 * r + 1];
      if constexpr (kIsTf32<Half>) {
        const float2 pair{low, high};
        reinterpret_cast<float2*>(stage.at(row, 2 * block + q / 2))[q % 2] = pair;
      } else {
        reinterpret_cast<std::uint32_t*>(stage.at(row, block))[q] = Mma<Half>::pack(low, high);
      }
    }
  }
}

}  // namespace serrate
