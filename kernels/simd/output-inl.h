// Results that are written whole cache lines at a time, rows one behind the other wherever they
// begin. Include after hwy/highway.h in a file that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_SIMD_OUTPUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_OUTPUT_INL_H_
#undef SERRATE_KERNELS_SIMD_OUTPUT_INL_H_
#else
#define SERRATE_KERNELS_SIMD_OUTPUT_INL_H_
#endif

#include "hwy/highway.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "kernels/output_path.h"
#include "kernels/simd/rows-inl.h"
#include "serrate/matrix_view.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline constexpr std::int64_t kStep = hn::MaxLanes(kFloats);

/// How many values ahead to fetch rows that lie one behind the other: hardware looks ahead less
/// far.
inline constexpr std::int64_t kAhead = 2048;

/// to[c] = f(lanes, c) for the columns from c on, as for_each_vector calls it. Past the caches if
/// so wished, and if nearly all of the row is whole vectors of its memory.
template <typename F>
HWY_INLINE void write_row(float* to, std::int64_t size, OutputPath path, const F& f) {
  constexpr std::int64_t kManyVectors = 64;
  const auto behind =
      static_cast<std::int64_t>(std::bit_cast<std::uintptr_t>(to) / sizeof(float) % kStep);
  const bool is_whole = behind == 0 && size % kStep == 0;
  if (path == OutputPath::kCached || !(is_whole || size >= kManyVectors * kStep)) {
    for_each_vector(size,
                    [&](auto lanes, std::int64_t c) HWY_ATTR { lanes.store(f(lanes, c), to + c); });
    return;
  }
  std::int64_t c = 0;
  if (behind > 0) {
    c = kStep - behind;
    const PartVector first(c);
    first.store(f(first, 0), to);
  }
  for (; c + kStep <= size; c += kStep) hn::Stream(f(WholeVector(), c), kFloats, to + c);
  if (c < size) {
    const PartVector last(size - c);
    last.store(f(last, c), to + c);
  }
}

/// After write_row, before another thread reads.
HWY_INLINE void finish_rows(OutputPath path) {
  if (path == OutputPath::kStreamed) hwy::FlushStream();
}

HWY_INLINE void copy_values(const float* from, std::int64_t size, float* to, OutputPath path) {
  write_row(to, size, path,
            [=](auto lanes, std::int64_t c) HWY_ATTR { return lanes.load(from + c); });
}

HWY_INLINE void fill_values(float value, std::int64_t size, float* to, OutputPath path) {
  constexpr std::int64_t kManyValues = 1024;
  if (std::bit_cast<std::uint32_t>(value) == 0 && size >= kManyValues) {
    std::memset(to, 0, size * sizeof(float));  // knows how to, without reading lines
    return;
  }
  const FloatVector values = hn::Set(kFloats, value);
  write_row(to, size, path, [=](auto, std::int64_t) HWY_ATTR { return values; });
}

/// to = from for matrices of the same shape; at once where both are contiguous.
HWY_INLINE void copy_rows(const MatrixView<const float>& from, const MatrixView<float>& to,
                          OutputPath path) {
  if (from.stride == to.cols && to.stride == to.cols) {
    return copy_values(from.data, to.rows * to.cols, to.data, path);
  }
  for (std::int64_t r = 0; r < to.rows; ++r) copy_values(from.row(r), to.cols, to.row(r), path);
}

HWY_INLINE void fill_rows(float value, const MatrixView<float>& to, OutputPath path) {
  if (to.stride == to.cols) return fill_values(value, to.rows * to.cols, to.data, path);
  for (std::int64_t r = 0; r < to.rows; ++r) fill_values(value, to.cols, to.row(r), path);
}

/// Rows [begin, end) of `to`: what `from` has of them, and `fill` in the rest.
HWY_INLINE void copy_resized(const MatrixView<const float>& from, float fill,
                             const MatrixView<float>& to, std::int64_t begin, std::int64_t end,
                             OutputPath path) {
  const std::int64_t last = std::clamp(from.rows, begin, end);
  const std::int64_t cols = std::min(from.cols, to.cols);
  if (cols == to.cols && begin < last) {
    copy_rows(from.columns(0, cols).middle_rows(begin, last), to.middle_rows(begin, last), path);
  } else {
    const FloatVector rest = hn::Set(kFloats, fill);
    for (std::int64_t r = begin; r < last; ++r) {
      const float* x = from.row(r);
      write_row(to.row(r), to.cols, path, [&](auto lanes, std::int64_t c) HWY_ATTR {
        if (c + kStep <= cols) return lanes.load(x + c);
        if (c >= cols) return rest;
        const PartVector in_x(cols - c);
        return in_x.select(in_x.load(x + c), rest);
      });
    }
  }
  if (last < end) fill_rows(fill, to.middle_rows(last, end), path);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_OUTPUT_INL_H_
