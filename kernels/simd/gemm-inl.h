// Products of tiles that are in cache, register-blocked, for kernels that fuse several of them.
// Every element of a product is one chain of multiply-adds in the order of k, wherever it lies in
// its tile: the same operands give the same bits in any tile. Include after hwy/highway.h in a
// file that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_SIMD_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_GEMM_INL_H_
#undef SERRATE_KERNELS_SIMD_GEMM_INL_H_
#else
#define SERRATE_KERNELS_SIMD_GEMM_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr std::int64_t kLanes = hn::MaxLanes(hn::ScalableTag<float>());
// Accumulators of one block: enough to hide the latency of a multiply-add, few enough for the
// registers (32 with AVX-512, else 16).
inline constexpr int kBlockRows = 6;
inline constexpr int kBlockVectors = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

/// A tile in row-major order.
template <typename T>
struct Tile {
  T* data = nullptr;
  std::int64_t stride = 0;
  T* row(std::int64_t r) const { return data + r * stride; }
  operator Tile<const T>() const  // NOLINT: implicit, as from span<T> to span<const T>
    requires(!std::is_const_v<T>)
  {
    return {data, stride};
  }
};

/// How the left operand is stored: A(i, p) is row i, column p of the tile, or the other way round.
enum class Left { kAsIs, kTransposed };
enum class Into { kOverwrite, kAdd };

/// The part of a product that a block of rows needs: p in [begin, end), and columns, in whole
/// vectors, from `column` to column_end or the last.
struct Extent {
  std::int64_t column, begin, end;
  std::int64_t column_end = std::numeric_limits<std::int64_t>::max();
};

// c[i][j] (+)= sum over p < k of A(i, p) b[p][j] for kRows rows and kVectors vectors of columns.
template <Left kLeft, int kRows, int kVectors>
HWY_NOINLINE void multiply_block(Tile<const float> a, Tile<const float> b, std::int64_t k,
                                 Tile<float> c, Into into) {
  const hn::ScalableTag<float> d;
  hn::Vec<decltype(d)> sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sum[i][v] = into == Into::kAdd ? hn::LoadU(d, c.row(i) + v * kLanes) : hn::Zero(d);
    }
  }
  const float* b_row = b.data;
#pragma GCC unroll 2
  for (std::int64_t p = 0; p < k; ++p, b_row += b.stride) {
    hn::Vec<decltype(d)> right[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) right[v] = hn::LoadU(d, b_row + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const auto left = hn::Set(d, kLeft == Left::kAsIs ? a.row(i)[p] : a.row(p)[i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(left, right[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[i][v], d, c.row(i) + v * kLanes);
  }
}

using BlockFunction = void (*)(Tile<const float>, Tile<const float>, std::int64_t, Tile<float>,
                               Into);

template <Left kLeft, int kVectors, int... kRow>
constexpr std::array<BlockFunction, kBlockRows> blocks_of(std::integer_sequence<int, kRow...>) {
  return {multiply_block<kLeft, kRow + 1, kVectors>...};
}

// kBlocks[v][r] multiplies a block of v + 1 vectors and r + 1 rows.
template <Left kLeft>
inline constexpr auto kBlocks = []<int... kVector>(std::integer_sequence<int, kVector...>) {
  return std::array{
      blocks_of<kLeft, kVector + 1>(std::make_integer_sequence<int, kBlockRows>())...};
}(std::make_integer_sequence<int, kBlockVectors>());

struct Nothing {
  void operator()() const {}
};

/// c (+)= A b for `rows` rows and `columns` columns, a multiple of kLanes. extent(first, end) says
/// what the rows [first, end) need; the rest of c keeps its values. meanwhile() is called for every
/// block.
template <Left kLeft, class ExtentOf, class Meanwhile = Nothing>
void multiply(std::int64_t rows, std::int64_t columns, Tile<const float> a, Tile<const float> b,
              Tile<float> c, Into into, const ExtentOf& extent, Meanwhile&& meanwhile = {}) {
  const std::int64_t vectors = columns / kLanes;
  const std::int64_t panels = (vectors + kBlockVectors - 1) / kBlockVectors;
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    const std::int64_t panel_begin = vectors * panel / panels * kLanes;
    const std::int64_t panel_end = vectors * (panel + 1) / panels * kLanes;
    for (std::int64_t row = 0; row < rows; row += kBlockRows) {
      const std::int64_t row_end = std::min<std::int64_t>(row + kBlockRows, rows);
      const Extent e = extent(row, row_end);
      const std::int64_t column = std::max(panel_begin, e.column);
      const std::int64_t column_end = std::min(panel_end, e.column_end);
      meanwhile();
      if (column >= column_end) continue;
      const float* left = kLeft == Left::kAsIs ? a.row(row) + e.begin : a.row(e.begin) + row;
      kBlocks<kLeft>[(column_end - column) / kLanes - 1][row_end - row - 1](
          {left, a.stride}, {b.row(e.begin) + column, b.stride}, e.end - e.begin,
          {c.row(row) + column, c.stride}, into);
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_GEMM_INL_H_
