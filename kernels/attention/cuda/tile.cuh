#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/attention/view.h"
#include "kernels/cuda/search.cuh"

// Tiles of queries and keys in shared memory. A block is 8 x 16 threads: of a tile of scores,
// thread (x, y) has the rows y, y + 16, ... and kColumns neighbouring columns; of rows of head_dim
// columns, it has the same rows and the columns x, x + 8, ... Eight lanes of a warp share a row.
namespace serrate {

inline constexpr int kThreadsX = 8, kThreadsY = 16, kWarps = 4, kLanes = 32;

template <int kTileSize, int kMaxDim>
struct TileShape {
  static constexpr int kTile = kTileSize, kDim = kMaxDim;  // head_dim is at most kDim
  static constexpr int kRows = kTile / kThreadsY;
  static constexpr int kColumns = kTile / kThreadsX;
  static constexpr int kDims = kDim / kThreadsX;
  static constexpr int kStride = kDim + 1;  // odd, so that rows begin in different banks
  static constexpr int kScoresStride = kTile + 1;
  static constexpr int kRowsSize = kTile * kStride, kScoresSize = kTile * kScoresStride;
  static_assert(kRows >= 1 && kColumns <= 4 && kRows * kColumns <= 32);
};

template <class Shape>
using Scores = float[Shape::kRows][Shape::kColumns];
template <class Shape>
using RowSums = float[Shape::kRows][Shape::kDims];

/// Calls f(row in the tile, index of the row).
template <class Shape, typename F>
__device__ void for_each_row(F&& f) {
#pragma unroll
  for (int r = 0; r < Shape::kRows; ++r) f(static_cast<int>(threadIdx.y) + kThreadsY * r, r);
}

/// Calls f(column, index) for a thread's columns of rows that are below head_dim.
template <class Shape, typename F>
__device__ void for_each_dim(int head_dim, F&& f) {
#pragma unroll
  for (int m = 0; m < Shape::kDims; ++m) {
    const int column = static_cast<int>(threadIdx.x) + kThreadsX * m;
    if (column < head_dim) f(column, m);
  }
}

template <class Shape>
__device__ int first_column() {
  return static_cast<int>(threadIdx.x) * Shape::kColumns;
}

__device__ inline int thread_index() {
  return static_cast<int>(threadIdx.y) * kThreadsX + static_cast<int>(threadIdx.x);
}

__device__ inline float sum_of_row(float x) {
  for (int lanes = 1; lanes < kThreadsX; lanes *= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}
__device__ inline float max_of_row(float x) {
  for (int lanes = 1; lanes < kThreadsX; lanes *= 2) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
  }
  return x;
}

__device__ inline float load(const InputHeads& from, std::int64_t token, std::int64_t head,
                             int column) {
  if (from.type == DataType::kFloat32) return view_as<float>(from).at(token, head)[column];
  if (from.type == DataType::kFloat16) {
    return __half2float(view_as<__half>(from).at(token, head)[column]);
  }
  return __bfloat162float(view_as<__nv_bfloat16>(from).at(token, head)[column]);
}
__device__ inline void store(float x, const OutputHeads& to, std::int64_t token, std::int64_t head,
                             int column) {
  if (to.type == DataType::kFloat32) {
    view_as<float>(to).at(token, head)[column] = x;
  } else if (to.type == DataType::kFloat16) {
    view_as<__half>(to).at(token, head)[column] = __float2half_rn(x);
  } else {
    view_as<__nv_bfloat16>(to).at(token, head)[column] = __float2bfloat16_rn(x);
  }
}

/// Rows [token, token + count) of a head, and 0s up to a whole tile.
template <class Shape>
__device__ void load_rows(const InputHeads& from, std::int64_t token, std::int64_t head,
                          std::int64_t count, int head_dim, float* to) {
  const int thread = thread_index();
#pragma unroll 1
  for (int row = thread / kLanes; row < Shape::kTile; row += kWarps) {
#pragma unroll 1
    for (int column = thread % kLanes; column < head_dim; column += kLanes) {
      to[row * Shape::kStride + column] = row < count ? load(from, token + row, head, column) : 0;
    }
  }
}

template <class Shape>
__device__ void store_rows(const RowSums<Shape>& rows, float factor, const OutputHeads& to,
                           std::int64_t token, std::int64_t head, std::int64_t count,
                           int head_dim) {
  for_each_row<Shape>([&](int row, int r) {
    if (row >= count) return;
    for_each_dim<Shape>(head_dim, [&](int column, int m) {
      store(factor * rows[r][m], to, token + row, head, column);
    });
  });
}

/// products = rows times columns^T, over head_dim.
template <class Shape>
__device__ void multiply(const float* rows, const float* columns, int head_dim,
                         Scores<Shape>& products) {
#pragma unroll
  for (auto& row : products) {
#pragma unroll
    for (float& x : row) x = 0;
  }
  const float* column = columns + first_column<Shape>() * Shape::kStride;
#pragma unroll 2
  for (int i = 0; i < head_dim; ++i) {
    float y[Shape::kColumns];
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) y[m] = column[m * Shape::kStride + i];
    for_each_row<Shape>([&](int row, int r) {
      const float x = rows[row * Shape::kStride + i];
#pragma unroll
      for (int m = 0; m < Shape::kColumns; ++m) products[r][m] = fmaf(x, y[m], products[r][m]);
    });
  }
}

enum class Weights { kAsTheyAre, kTransposed };

/// sums += weights (of a tile of scores) times the first `count` rows.
template <class Shape, Weights kWeights>
__device__ void add_product(const float* weights, const float* rows, std::int64_t count,
                            int head_dim, RowSums<Shape>& sums) {
#pragma unroll 1
  for (int i = 0; i < count; ++i) {
    float w[Shape::kRows];
    for_each_row<Shape>([&](int row, int r) {
      w[r] = kWeights == Weights::kAsTheyAre ? weights[row * Shape::kScoresStride + i]
                                             : weights[i * Shape::kScoresStride + row];
    });
    for_each_dim<Shape>(head_dim, [&](int column, int m) {
      const float x = rows[i * Shape::kStride + column];
#pragma unroll
      for (int r = 0; r < Shape::kRows; ++r) sums[r][m] = fmaf(w[r], x, sums[r][m]);
    });
  }
}

/// A thread's part of a tile of scores, to shared memory.
template <class Shape>
__device__ void write_scores(const Scores<Shape>& scores, float* to) {
  for_each_row<Shape>([&](int row, int r) {
#pragma unroll
    for (int m = 0; m < Shape::kColumns; ++m) {
      to[row * Shape::kScoresStride + first_column<Shape>() + m] = scores[r][m];
    }
  });
}

template <class Shape>
__device__ void set_zero(RowSums<Shape>& sums) {
#pragma unroll
  for (auto& row : sums) {
#pragma unroll
    for (float& x : row) x = 0;
  }
}

// ---- where tiles are ------------------------------------------------------------------------
// Tiles of a jagged axis are numbered so that a block finds its own by the offsets alone, with no
// plan: sequence s has the numbers from (its first token) / kTile + s on, which are at least as
// many as it has tiles. What is behind its end is no tile.

struct TilePlace {
  std::int64_t sequence, first;
};

/// The end of all numbers.
__device__ inline std::int64_t num_tiles(std::span<const std::int64_t> offsets, int tile) {
  const auto sequences = static_cast<std::int64_t>(offsets.size()) - 1;
  return (offsets[sequences] - offsets[0]) / tile + sequences;
}

__device__ inline TilePlace tile_at(std::span<const std::int64_t> offsets, int tile,
                                    std::int64_t number) {
  const auto first_of = [&](std::int64_t s) { return (offsets[s] - offsets[0]) / tile + s; };
  const auto sequences = static_cast<std::int64_t>(offsets.size()) - 1;
  const std::int64_t sequence = last_at_most(sequences, number, first_of);
  return {sequence, (number - first_of(sequence)) * tile};
}

/// Tiles of the queries, which all sequences may share.
__device__ inline std::int64_t num_query_tiles(const AttentionView& args, int tile) {
  if (args.num_shared_queries == 0) return num_tiles(args.query_offsets, tile);
  return batch_size_of(args) * ceil_div(args.num_shared_queries, tile);
}
__device__ inline TilePlace query_tile_at(const AttentionView& args, int tile,
                                          std::int64_t number) {
  if (args.num_shared_queries == 0) return tile_at(args.query_offsets, tile, number);
  const std::int64_t tiles = ceil_div(args.num_shared_queries, tile);
  return {number / tiles, number % tiles * tile};
}

}  // namespace serrate
