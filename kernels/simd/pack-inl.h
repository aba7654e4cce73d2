// Copies of strided rows into tiles. Include after hwy/highway.h in a file that foreach_target.h
// compiles once per target.
#if defined(SERRATE_KERNELS_SIMD_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_PACK_INL_H_
#undef SERRATE_KERNELS_SIMD_PACK_INL_H_
#else
#define SERRATE_KERNELS_SIMD_PACK_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "kernels/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline std::int64_t round_up_to_lanes(std::int64_t n) {
  return (n + kLanes - 1) / kLanes * kLanes;
}

/// to[r][c] = factor[r] * from[r][c]; may be in place.
inline void scale_rows(Tile<const float> from, std::int64_t rows, std::int64_t columns,
                       const float* factor, Tile<float> to) {
  const hn::ScalableTag<float> d;
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto f = hn::Set(d, factor[r]);
    std::int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      hn::StoreU(hn::Mul(f, hn::LoadU(d, from.row(r) + c)), d, to.row(r) + c);
    }
    for (; c < columns; ++c) to.row(r)[c] = factor[r] * from.row(r)[c];
  }
}

inline void copy_rows(Tile<const float> from, std::int64_t rows, std::int64_t columns,
                      Tile<float> to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const hn::ScalableTag<float> d;
    std::int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      hn::StoreU(hn::LoadU(d, from.row(r) + c), d, to.row(r) + c);
    }
    for (; c < columns; ++c) to.row(r)[c] = from.row(r)[c];
  }
}

/// The rows where they are if they consist of whole vectors, else a copy that does, ended by 0s.
template <typename T>
Tile<T> whole_vectors(Tile<T> from, std::int64_t rows, std::int64_t columns, float* copy) {
  if (columns % kLanes == 0) return from;
  const Tile<float> to{copy, round_up_to_lanes(columns)};
  copy_rows(from, rows, columns, to);
  for (std::int64_t r = 0; r < rows; ++r) std::fill(to.row(r) + columns, to.row(r + 1), 0.0f);
  return to;
}

#if HWY_TARGET != HWY_SCALAR
// Four floats from each of MaxLanes(d) / 4 rows, four rows apart: one 128-bit block a row.
template <class D>
HWY_INLINE hn::Vec<D> load_quads(D d, const float* const* rows, std::int64_t column) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, rows[0] + column);
  } else {
    const hn::Half<D> half;
    return hn::Combine(d, load_quads(half, rows + hn::MaxLanes(D()) / 2, column),
                       load_quads(half, rows, column));
  }
}

// Four columns of kLanes rows become four vectors.
HWY_INLINE void transpose_quads(const float* const* rows, std::int64_t column, float factor,
                                Tile<float> to) {
  const hn::ScalableTag<float> d;
  const auto scale = hn::Set(d, factor);
  const auto row0 = hn::Mul(scale, load_quads(d, rows, column));
  const auto row1 = hn::Mul(scale, load_quads(d, rows + 1, column));
  const auto row2 = hn::Mul(scale, load_quads(d, rows + 2, column));
  const auto row3 = hn::Mul(scale, load_quads(d, rows + 3, column));
  const auto low02 = hn::InterleaveLower(d, row0, row2);
  const auto low13 = hn::InterleaveLower(d, row1, row3);
  const auto high02 = hn::InterleaveUpper(d, row0, row2);
  const auto high13 = hn::InterleaveUpper(d, row1, row3);
  hn::StoreU(hn::InterleaveLower(d, low02, low13), d, to.row(0));
  hn::StoreU(hn::InterleaveUpper(d, low02, low13), d, to.row(1));
  hn::StoreU(hn::InterleaveLower(d, high02, high13), d, to.row(2));
  hn::StoreU(hn::InterleaveUpper(d, high02, high13), d, to.row(3));
}
#endif

/// to[c][r] = factor * from[r][c]; r in [rows, round_up_to_lanes(rows)) repeats the last row.
inline void transpose_rows(Tile<const float> from, std::int64_t rows, std::int64_t columns,
                           float factor, Tile<float> to) {
  const float* lane_rows[kLanes];
  for (std::int64_t r = 0; r < rows; r += kLanes) {
    for (std::int64_t i = 0; i < kLanes; ++i) lane_rows[i] = from.row(std::min(r + i, rows - 1));
    std::int64_t c = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; c + 4 <= columns; c += 4) {
      transpose_quads(lane_rows, c, factor, {to.row(c) + r, to.stride});
    }
#endif
    for (; c < columns; ++c) {
      for (std::int64_t i = 0; i < kLanes; ++i) to.row(c)[r + i] = factor * lane_rows[i][c];
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_PACK_INL_H_
