#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/attention/cuda/launch_tiles.cuh"
#include "kernels/attention/cuda/mma/scores.cuh"
#include "kernels/attention/cuda/tensor_cores.h"
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"

// Tiles of a sequence's rows as Hopper's bulk copies bring them and wgmma reads them, and fragments
// as wgmma has them.

// Other architectures have an empty kernel, which they do not launch.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define SERRATE_WGMMA 1
#endif

namespace serrate {

#ifdef SERRATE_WITH_SM_90A
inline constexpr bool kHasSm90a = true;
#else
inline constexpr bool kHasSm90a = false;
#endif

// Tiles have 64 rows, unless they say so, as panels of 64 columns of halves: 128 bytes a row,
// swizzled as wgmma reads them; or of 32 columns, 64 bytes. Rows of e4m3 are as many bytes of half
// as many halves.
inline constexpr int kPanelColumns = 64;
inline constexpr int kRowBytes = kPanelColumns * 2, kPanelBytes = kMmaTile * kRowBytes;
template <int kDim>
inline constexpr int kTileBytes = kMmaTile * kDim * 2;

// A tensor map of rows whose row count is encoded in the coordinates, so that a copy ends with its
// sequence: rows are counted up to kRowsEnd, and two more dimensions shift them. Their strides and
// that of a row, s, make kRowsEnd (2^34 - s) + kRowsEnd s = 2^64, which is 0 in an address (as in
// Triton's ragged TMA). Rows are below 2^31, as no GPU has memory for more.
inline constexpr std::int64_t kRowsEnd = std::int64_t{1} << 30, kShift = std::int64_t{1} << 34;

// Rows for load_tile, so many at a time.
inline CUtensorMap map_of(const InputHeads& heads, std::int64_t num_heads, std::int64_t head_dim,
                          std::uint32_t tile_rows = kMmaTile) {
  const auto size = [](std::int64_t n) { return static_cast<std::uint64_t>(n); };
  const std::int64_t row = 2 * heads.token_stride;
  return make_tensor_map<5>(
      {.type = heads.type == DataType::kFloat16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
       .data = heads.device_data,
       .sizes = {size(head_dim), size(num_heads), size(kRowsEnd), size(kRowsEnd) + 1,
                 std::uint64_t{1} << 31},
       .strides = {size(2 * heads.head_stride), size(row), size(kShift - row), size(row)},
       .box = {static_cast<std::uint32_t>(std::min<std::int64_t>(head_dim, kPanelColumns)), 1,
               tile_rows, 1, 1},
       .swizzle =
           head_dim < kPanelColumns ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B});
}

// Whether map_of can describe them.
inline bool has_map(const InputHeads& heads) {
  const auto fits = [](std::int64_t stride) { return 0 < stride && 2 * stride < kShift; };
  return heads.device_data && fits(heads.token_stride) && fits(heads.head_stride);
}

/// The tensors of the backward's tokens, as bulk copies take them.
struct TokenMaps {
  CUtensorMap q, d_out, k, v;
};

#ifdef SERRATE_WGMMA

// `count` rows of a head in one of its tensors, from `first` on.
struct RowsToCopy {
  const CUtensorMap* map;
  std::int64_t first, count, head;
};

// The first ones of these in kDim columns; the rest of the tile's kRows becomes 0. With `blocks`,
// for those of the cluster (load_box_to()).
template <int kDim, int kRows = kMmaTile>
__device__ void load_tile(unsigned char* tile, const RowsToCopy& from, Mbarrier* full,
                          int first_column = 0, unsigned blocks = 0) {
  const int rows = static_cast<int>(from.count < kRows ? from.count : kRows);
  constexpr int kEnd = static_cast<int>(kRowsEnd);
#pragma unroll
  for (int panel = 0; panel < ceil_div(kDim, kPanelColumns); ++panel) {
    const int coordinates[5] = {first_column + panel * kPanelColumns, static_cast<int>(from.head),
                                kEnd - rows, kEnd, static_cast<int>(from.first) + rows};
    unsigned char* const to = tile + panel * kRows * kRowBytes;
    if (blocks == 0) {
      load_box(to, from.map, coordinates, full);
    } else {
      load_box_to(blocks, to, from.map, coordinates, full);
    }
  }
}

// The rows of a tile of so many, for threads.
template <class Half, int kRows = kMmaTile>
struct PanelRows {
  static constexpr int kChunks = kPanelColumns / kChunkSize<Half>;  // of a panel
  unsigned char* tile;

  __device__ Half* at(int row, int chunk) const {
    unsigned char* const panel = tile + chunk / kChunks * kRows * kRowBytes;
    return SwizzledRows<kPanelColumns, Half>{reinterpret_cast<Half*>(panel)}.at(row,
                                                                                chunk % kChunks);
  }
};

template <class Half>
inline constexpr WgmmaType kTypeOf =
    std::is_same_v<Half, __nv_bfloat16> ? WgmmaType::kBf16 : WgmmaType::kF16;

// A descriptor, which is the same in all lanes: the compiler then keeps it in uniform registers,
// from where wgmma takes it.
__device__ inline std::uint64_t descriptor_of(const unsigned char* tile, std::uint32_t leading,
                                              bool is_narrow = false) {
  const std::uint64_t x = is_narrow
                              ? wgmma_descriptor(tile, {leading, 512, WgmmaSwizzle::k64Bytes})
                              : wgmma_descriptor(tile, {leading, 1024, WgmmaSwizzle::k128Bytes});
  return x >> 32 << 32 | __shfl_sync(~0u, static_cast<std::uint32_t>(x), 0);
}
// That of a tile that begins so many bytes further.
__device__ inline std::uint64_t advance(std::uint64_t descriptor, unsigned bytes) {
  return descriptor + bytes / 16;
}

// A fragment as wgmma has it: the same registers in the same order.
template <int kBlocks>
__device__ float (&accumulators(Fragment<kBlocks>& fragment))[kBlocks * 4] {
  return reinterpret_cast<float(&)[kBlocks * 4]>(fragment);
}

// 64 rows of 64 columns, 16 of each in a warp, as a product's left side in registers.
using LeftSide = std::uint32_t[kMmaTile / 16][4];

template <class Half, int kBlocks>
__device__ void round_weights(const Fragment<kBlocks>& scores,
                              std::uint32_t (&weights)[kBlocks / 2][4]) {
#pragma unroll
  for (int k = 0; k < kBlocks / 2; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto& block = scores[2 * k + i / 2];
      weights[k][i] = Mma<Half>::pack(block[i % 2 * 2], block[i % 2 * 2 + 1]);
    }
  }
}

/// Bytes from the beginning of a tile of so many rows to that of 16 of its columns.
__device__ constexpr unsigned bytes_before(int sixteen_columns, int rows = kMmaTile) {
  return sixteen_columns / 4 * rows * kRowBytes + sixteen_columns % 4 * 32;
}

/// products = (or +=) the 64 rows of a tile times the transpose of 8 kBlocks rows of another, which
/// has kRows, over kColumns of halves or as many bytes of e4m3.
template <int kColumns, WgmmaType kType, int kRows = kMmaTile, int kBlocks>
__device__ void multiply_rows(const unsigned char* tile, const unsigned char* rows,
                              Fragment<kBlocks>& products,
                              WgmmaScale scale = WgmmaScale::kOverwrite) {
  const std::uint64_t a = descriptor_of(tile, 0), b = descriptor_of(rows, 0);
#pragma unroll
  for (int k = 0; k < kColumns / 16; ++k) {
    wgmma<kType, 8 * kBlocks>(accumulators(products), advance(a, bytes_before(k)),
                              advance(b, bytes_before(k, kRows)),
                              k == 0 ? scale : WgmmaScale::kAdd);
  }
}

/// sums += weights times 16 kSteps rows of a tile.
template <int kDim, class Half, int kSteps>
__device__ void add_rows(const std::uint32_t (&weights)[kSteps][4], const unsigned char* rows,
                         Fragment<kDim / 8>& sums) {
  const std::uint64_t b = descriptor_of(rows, kPanelBytes);
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
    wgmma<kTypeOf<Half>, kDim, WgmmaMajor::kRows>(accumulators(sums), weights[k],
                                                  advance(b, k * 16 * kRowBytes), WgmmaScale::kAdd);
  }
}

#endif

/// Calls f(head_dim and Extras, as constants, a value of the type of the rows), of what Hopper's
/// kernels for halves have.
template <typename F>
void with_wgmma(const AttentionView& args, F&& f) {
  with_halves<256>(args, [&](auto dim, auto row) {
    if constexpr (dim() >= 64) {
      if (extras_of(args) == Extras::kAny) {
        f(dim, std::integral_constant<Extras, Extras::kAny>(), row);
      } else {
        f(dim, std::integral_constant<Extras, Extras::kNone>(), row);
      }
    }
  });
}

}  // namespace serrate
