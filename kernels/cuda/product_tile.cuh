#pragma once

#include "kernels/cuda/fours.cuh"

// Products of tiles in fp32, by 256 threads: 64 rows of one matrix times 64 of another. Thread
// (x, y) of 16 x 16 has the 4 x 4 results of rows 4y.. of the first and 4x.. of the second.
namespace serrate {

constexpr int kTile = 64;
constexpr unsigned kTileThreads = 256;

/// Behind each row four floats, so that vectors stay aligned and columns lie in different banks.
using SharedTile = float[kTile][kTile + 4];

/// Some rows of a matrix, of which a tile begins at the first.
struct TileRows {
  const float* data;
  std::int64_t stride, rows, cols;
};

template <typename T>
__device__ TileRows tile_rows(const Rows<T>& from, std::int64_t first, std::int64_t end,
                              std::int64_t cols) {
  return {from.row(first), from.stride, end - first, cols};
}

/// Whether a tile's row r and column c are in the matrix.
__device__ inline bool has(const TileRows& from, unsigned r, std::int64_t c) {
  return r < from.rows && c < from.cols;
}

/// tile[c - begin][r] = from[r][c] for 64 columns; 0 where there is none. Two lanes (eight,
/// by single floats) read 32 bytes of a row, and 32 lanes write 32 banks.
template <Access kAccess>
__device__ void load_transposed(const TileRows& from, std::int64_t begin, SharedTile& tile) {
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if constexpr (kAccess == Access::kScalars) {
#pragma unroll 4
    for (unsigned i = 0; i < 16; ++i) {
      const unsigned r = i / 8 * 32 + warp * 4 + lane / 8, c = i % 8 * 8 + lane % 8;
      tile[c][r] = has(from, r, begin + c) ? from.data[r * from.stride + begin + c] : 0;
    }
    return;
  }
  const unsigned r = warp % 4 * 16 + lane / 2;
  for (unsigned c = warp / 4 * 8 + lane % 2 * 4; c < kTile; c += 16) {
    Four four{};
    if (has(from, r, begin + c)) {
      four = load_four<kAccess>(from.data + r * from.stride, begin + c, from.cols);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) tile[c + k][r] = four.value[k];
  }
}

/// tile[r][c - begin] = from[r][c]; 0 where there is none.
template <Access kAccess>
__device__ void load_straight(const TileRows& from, std::int64_t begin, SharedTile& tile) {
  constexpr unsigned kAtOnce = kAccess == Access::kVectors ? 4 : 1;
#pragma unroll 4
  for (unsigned i = threadIdx.x * kAtOnce; i < kTile * kTile; i += kTileThreads * kAtOnce) {
    const unsigned r = i / kTile, c = i % kTile;
    const float* const row = from.data + r * from.stride;
    const bool is_there = has(from, r, begin + c);
    if constexpr (kAccess == Access::kScalars) {
      tile[r][c] = is_there ? row[begin + c] : 0;
    } else {
      Four four{};
      if (is_there) four = load_four<kAccess>(row, begin + c, from.cols);
      *reinterpret_cast<Four*>(&tile[r][c]) = four;
    }
  }
}

/// result[i][j] += sum over k < depth of a[k][4y + i] b[k][4x + j], in the order of k.
__device__ inline void multiply_tiles(const SharedTile& a, const SharedTile& b, int depth,
                                      float (&result)[4][4]) {
  const unsigned x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 4
  for (int k = 0; k < depth; ++k) {
    const Four from_a = *reinterpret_cast<const Four*>(&a[k][4 * y]);
    const Four from_b = *reinterpret_cast<const Four*>(&b[k][4 * x]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        result[i][j] = fmaf(from_a.value[i], from_b.value[j], result[i][j]);
      }
    }
  }
}

/// result = the dot products of rows of a and b, of as many columns: chains of multiply-adds in
/// the order of columns. Leaves the shared tiles to others.
template <Access kAccess>
__device__ void multiply_rows(const TileRows& a, const TileRows& b, SharedTile& shared_a,
                              SharedTile& shared_b, float (&result)[4][4]) {
#pragma unroll
  for (auto& row : result) {
#pragma unroll
    for (float& value : row) value = 0;
  }
  for (std::int64_t begin = 0; begin < a.cols; begin += kTile) {
    load_transposed<kAccess>(a, begin, shared_a);
    load_transposed<kAccess>(b, begin, shared_b);
    __syncthreads();
    multiply_tiles(shared_a, shared_b,
                   static_cast<int>(std::min<std::int64_t>(kTile, a.cols - begin)), result);
    __syncthreads();
  }
}

inline std::int64_t num_tiles(std::int64_t rows) {
  return (rows + kTile - 1) / kTile;
}

}  // namespace serrate
