#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/fragments.cuh"
#include "kernels/dense/cuda/sampled_softmax.cuh"

// Tiles of rounded rows in shared memory, and their products on tensor cores.
namespace serrate {

inline constexpr int kSoftmaxThreads = kTile / kWarpRows * 32;

/// What factors are rounded to. Tiles are rows of so many bfloat16, or of their two halves: an mma
/// takes 32 bytes of a row in either type, and the same lanes the same four bytes of them.
struct Bf16Factor {
  using Value = BFloat16;
  using Product = Mma<__nv_bfloat16>;
  __device__ static Four round(const Four& four) { return four; }  // store_four does

  template <int kBlocks, int kDim>
  __device__ static void add_weighted_rows(const Fragment<kBlocks>& weights,
                                           SwizzledRows<kDim> rows, int first, int count,
                                           Fragment<kDim / 8>& sums) {
    serrate::add_weighted_rows<kDim, kDim, kBlocks>(weights, rows, first, count, 0, sums);
  }
};

struct Tf32Factor {
  using Value = float;
  struct Product {
    __device__ void operator()(float (&d)[4], const std::uint32_t (&a)[4],
                               const std::uint32_t (&b)[2]) const {
      mma_m16n8k8_tf32(d, a, b);
    }
  };
  __device__ static Four round(const Four& four) {
    return map_four([](float x) { return __uint_as_float(round_to_tf32(x)); }, four);
  }

  // The mma is given rows 2q and 2q + 1 of 8 in the places of q and q + 4, so that a lane has the
  // weights it needs; what the lanes read of them lies in 32 different banks.
  template <int kBlocks, int kHalves>
  __device__ static void add_weighted_rows(const Fragment<kBlocks>& weights,
                                           SwizzledRows<kHalves> rows, int first, int count,
                                           Fragment<kHalves / 16>& sums) {
    using Rows = SwizzledRows<kHalves>;
    const int g = lane_index() / 4, q = lane_index() % 4;
    const int even = Rows::place(first + 2 * q, g / 4), odd = Rows::place(first + 2 * q + 1, g / 4);
#pragma unroll
    for (int k = 0; k < kBlocks; ++k) {
      if (k * 8 >= count) break;
      const auto& w = weights[k];
      const std::uint32_t a[4] = {round_to_tf32(w[0]), round_to_tf32(w[2]), round_to_tf32(w[1]),
                                  round_to_tf32(w[3])};
#pragma unroll
      for (int n = 0; n < kHalves / 16; ++n) {
        // Chunk 2 n + g / 4 of rows 8 k below; the swizzle swaps 8 chunks, 4 blocks.
        const auto value = [&](int place) {
          const auto* const chunk = rows.data + (place ^ n % 4 * 16) + n / 4 * 64 + k * 8 * kHalves;
          return reinterpret_cast<const std::uint32_t*>(chunk)[g % 4];
        };
        mma_m16n8k8_tf32(sums[n], a, {value(even), value(odd)});
      }
    }
  }
};

/// What a block knows of a row of the other side.
struct NegativeColumn {
  std::int64_t id;
};
struct TokenColumn {
  std::int64_t id;
  float max, scale;
};

/// What a block has in shared memory.
template <class Factor, int kDim, class Column>
struct SoftmaxTiles {
  static constexpr int kHalves = kDim * static_cast<int>(sizeof(typename Factor::Value)) / 2;
  static constexpr int kTileHalves = kTile * kHalves;
  static constexpr int kStages = kHalves < 512 ? 2 : 1;  // three tiles of 64 KiB are too many
  static constexpr std::size_t kBytes =
      (1 + kStages) * kTileHalves * sizeof(__nv_bfloat16) + 2 * kTile * sizeof(Column);
  // Logits that a warp has at once, so that these and its sums fit in registers.
  static constexpr int kBlocks = kDim <= 128 ? kTile / 8 : kTile / 16;
  using Tile = SwizzledRows<kHalves>;

  Tile own{dynamic_shared<__nv_bfloat16>()};
  __device__ Tile other(int index) const {
    return {own.data + (1 + index % kStages) * kTileHalves};
  }
  __device__ Column* columns(int index) const {
    return reinterpret_cast<Column*>(own.data + (1 + kStages) * kTileHalves) + index % 2 * kTile;
  }

  // Begins to copy the tile from row `first` on.
  __device__ static void copy(const void* rows, std::int64_t first, Tile to) {
    constexpr int kChunks = kHalves / 8;
    const uint4* const from = static_cast<const uint4*>(rows) + first * kChunks;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kChunks; i += kSoftmaxThreads) {
      copy_async(to.at(i / kChunks, i % kChunks), from + i);
    }
  }
};

/// The rounded rows of both sides.
struct RoundedSides {
  const void *own, *others;
  std::int64_t own_size;
};

/// Calls use(logits, columns, tile, first, count) for the tiles of the block's chunk, or halves of
/// them, with the products of the warp's rows and those from `first` on, of which there are
/// `count`; load(row) is a row's Column.
template <class Factor, int kDim, class Column, typename Load, typename Use>
__device__ void for_each_tile(const SoftmaxChunk& chunk, const RoundedSides& sides, Load load,
                              Use use) {
  using Tiles = SoftmaxTiles<Factor, kDim, Column>;
  const Tiles tiles;
  const bool has_column = threadIdx.x < kTile;
  const auto column_of = [&](std::int64_t begin) {
    const std::int64_t row = begin + threadIdx.x;
    return has_column && row < chunk.end ? load(row) : Column{};
  };
  Tiles::copy(sides.own, chunk.first, tiles.own);
  if (chunk.begin < chunk.end) {
    Tiles::copy(sides.others, chunk.begin, tiles.other(0));
    if (has_column) tiles.columns(0)[threadIdx.x] = column_of(chunk.begin);
  }
  copy_async_commit();
  const int first_row = static_cast<int>(threadIdx.x) / 32 * kWarpRows;
  const bool has_rows = chunk.first + first_row < sides.own_size;
  int index = 0;
  for (std::int64_t begin = chunk.begin; begin < chunk.end; begin += kTile, ++index) {
    copy_async_wait<0>();
    __syncthreads();  // the tile is there, and all warps are done with the one before
    const std::int64_t next = begin + kTile;
    const bool has_next = next < chunk.end;
    if (Tiles::kStages == 2 && has_next) Tiles::copy(sides.others, next, tiles.other(index + 1));
    copy_async_commit();
    const Column next_column = column_of(next);

    const int count = static_cast<int>(std::min<std::int64_t>(kTile, chunk.end - begin));
    for (int first = 0; has_rows && first < count; first += 8 * Tiles::kBlocks) {
      Fragment<Tiles::kBlocks> logits;
      multiply_rows<Tiles::kHalves, Tiles::kBlocks, __nv_bfloat16, typename Factor::Product>(
          tiles.own, first_row, tiles.other(index), first, count - first, logits);
      use(logits, tiles.columns(index) + first, tiles.other(index), first, count - first);
    }

    if (has_next && has_column) tiles.columns(index + 1)[threadIdx.x] = next_column;
    if (Tiles::kStages == 1 && has_next) {
      __syncthreads();
      Tiles::copy(sides.others, next, tiles.other(0));
      copy_async_commit();
    }
  }
  copy_async_wait<0>();
}

}  // namespace serrate
