// Loops over rows of numbers, as floats, for the Highway target that includes this file: once per
// target, hence the guard that toggles. Whatever prefetches has to be inlined, and not be a lambda:
// GCC drops the call of a function that does nothing else as free of effects.
#if defined(SERRATE_KERNELS_ROW_OPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_ROW_OPS_INL_H_
#undef SERRATE_KERNELS_ROW_OPS_INL_H_
#else
#define SERRATE_KERNELS_ROW_OPS_INL_H_
#endif

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "serrate/bfloat16.h"
#include "serrate/float16.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls f(std::integral_constant<int, n>) for rows of n whole vectors, the usual widths whose sums
// fit in registers; n = 0 stands for any other width.
template <class F>
HWY_INLINE void dispatch_width(std::int64_t cols, F f) {
  constexpr std::int64_t kWidth = hn::MaxLanes(hn::ScalableTag<float>());
  switch (cols % kWidth == 0 ? cols / kWidth : 0) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 4:
      return f(std::integral_constant<int, 4>());
    case 8:
      return f(std::integral_constant<int, 8>());
    default:
      return f(std::integral_constant<int, 0>());
  }
}

// Calls f(d, c) for vectors of type d at columns c that cover [begin, cols), in order.
template <int kVectors, class F>
HWY_INLINE void for_each_vector(std::int64_t begin, std::int64_t cols, F f) {
  const hn::ScalableTag<float> full;
  constexpr std::int64_t kWidth = hn::MaxLanes(full);
  if constexpr (kVectors > 0) {
    for (int v = 0; v < kVectors; ++v) f(full, v * kWidth);
  } else {
    const hn::CappedTag<float, 4> quarter;
    const hn::CappedTag<float, 1> one;
    constexpr std::int64_t kQuarter = hn::MaxLanes(quarter);
    std::int64_t c = begin;
    for (; c + kWidth <= cols; c += kWidth) f(full, c);
    for (; c + kQuarter <= cols; c += kQuarter) f(quarter, c);
    for (; c < cols; ++c) f(one, c);
  }
}

template <int kVectors>
HWY_INLINE void prefetch_row(const float* row, std::int64_t cols) {
  constexpr std::int64_t kLineFloats = 16, kWidth = hn::MaxLanes(hn::ScalableTag<float>());
  const std::int64_t end = kVectors > 0 ? kVectors * kWidth : cols;
  for (std::int64_t c = 0; c < end; c += kLineFloats) hwy::Prefetch(row + c);
}

template <class D>
HWY_INLINE hn::Vec<D> load_values(D d, const float* from) {
  return hn::LoadU(d, from);
}
template <class D>
HWY_INLINE hn::Vec<D> load_values(D d, const BFloat16* from) {
  const hn::RebindToUnsigned<D> words;
  const hn::Rebind<std::uint16_t, D> halves;
  const auto bits = hn::LoadU(halves, reinterpret_cast<const std::uint16_t*>(from));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(words, bits)));
}
template <class D>
HWY_INLINE hn::Vec<D> load_values(D d, const Float16* from) {
#if HWY_TARGET <= HWY_AVX2 && !defined(HWY_DISABLE_F16C)
  const hn::Rebind<hwy::float16_t, D> halves;
  return hn::PromoteTo(d, hn::LoadU(halves, reinterpret_cast<const hwy::float16_t*>(from)));
#else  // where PromoteTo makes numbers of infinities and NaN
  const hn::RebindToUnsigned<D> words;
  const hn::Rebind<std::uint16_t, D> halves;
  const auto word =
      hn::PromoteTo(words, hn::LoadU(halves, reinterpret_cast<const std::uint16_t*>(from)));
  const auto magnitude = hn::And(word, hn::Set(words, 0x7FFF));
  const auto sign = hn::ShiftLeft<16>(hn::Xor(word, magnitude));
  // In the places of a float's bits these are 2^-112 of the number.
  const auto finite = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(magnitude)), hn::Set(d, 0x1p112f));
  const auto is_finite = hn::Lt(magnitude, hn::Set(words, 0x7C00));
  const auto exponent = hn::IfThenElse(is_finite, hn::Zero(words), hn::Set(words, 0x7F800000));
  return hn::BitCast(d, hn::Or(hn::BitCast(words, finite), hn::Or(exponent, sign)));
#endif
}

// The sum of rows [begin, end) in columns [column, column + kVectors * lanes), held in registers.
template <int kVectors, class D, class Rows>
HWY_INLINE void sum_columns(D d, const Rows& rows, std::int64_t begin, std::int64_t end,
                            std::int64_t column, float* out) {
  constexpr std::int64_t kWidth = hn::MaxLanes(D());
  hn::Vec<D> sum[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    sum[v] = begin == 0 ? hn::Zero(d) : hn::LoadU(d, out + column + v * kWidth);
  }
  for (std::int64_t i = begin; i < end; ++i) {
    const auto* row = rows.row(i) + column;
    const auto* row_ahead = rows.row_ahead(i) + column;
    const auto weight = hn::Set(d, rows.weight(i));
    for (int v = 0; v < kVectors; ++v) hwy::Prefetch(row_ahead + v * kWidth);
    if constexpr (requires { rows.row_far_ahead(i); }) {
      const auto* row_far_ahead = rows.row_far_ahead(i) + column;
      for (int v = 0; v < kVectors; ++v) {
        __builtin_prefetch(row_far_ahead + v * kWidth, 0, 2);  // into the second-level cache
      }
    }
    // Keeps the compiler from mixing these with the reads below, which measured 8 % slower.
    std::atomic_signal_fence(std::memory_order_acq_rel);
    for (int v = 0; v < kVectors; ++v) {
      sum[v] = hn::MulAdd(weight, load_values(d, row + v * kWidth), sum[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[v], d, out + column + v * kWidth);
}

// out[c] = sum over i in [0, count), in this order, of rows.weight(i) * rows.row(i)[c], c < cols.
// rows.row_ahead(i) is a row that will be read soon, rows.row_far_ahead(i), if there is one, later.
// What rows are of, load_values makes floats of.
template <int kVectors, class Rows>
HWY_INLINE void sum_rows(const Rows& rows, std::int64_t count, std::int64_t cols, float* out) {
  const hn::ScalableTag<float> full;
  if constexpr (kVectors > 0) {
    sum_columns<kVectors>(full, rows, 0, count, 0, out);
  } else {
    // So few rows at a time that they are still in the first-level cache for their next columns.
    constexpr std::int64_t kRowBlock = 32, kColumnBlock = 8 * hn::MaxLanes(full);
    std::int64_t begin = 0;
    do {
      const std::int64_t end = HWY_MIN(begin + kRowBlock, count);
      std::int64_t column = 0;
      for (; column + kColumnBlock <= cols; column += kColumnBlock) {
        sum_columns<8>(full, rows, begin, end, column, out);
      }
      for_each_vector<0>(column, cols, [&](auto d, std::int64_t c) HWY_ATTR {
        sum_columns<1>(d, rows, begin, end, c, out);
      });
      begin = end;
    } while (begin < count);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_ROW_OPS_INL_H_
