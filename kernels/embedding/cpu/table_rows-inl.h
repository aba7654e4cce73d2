// Rows of tables of any type, for the Highway target that includes this file: once per target,
// hence the guard that toggles.
#if defined(SERRATE_KERNELS_EMBEDDING_TABLE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_EMBEDDING_TABLE_ROWS_INL_H_
#undef SERRATE_KERNELS_EMBEDDING_TABLE_ROWS_INL_H_
#else
#define SERRATE_KERNELS_EMBEDDING_TABLE_ROWS_INL_H_
#endif

#include <cstdint>
#include <vector>

#include "hwy/highway.h"
#include "kernels/embedding/stochastic_rounding.h"
#include "kernels/simd/philox-inl.h"
#include "kernels/simd/row_ops-inl.h"
#include "serrate/any_matrix.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class Value>
HWY_INLINE void widen_row(const Value* from, std::int64_t cols, float* to) {
  for_each_vector<0>(0, cols, [=](auto d, std::int64_t c) HWY_ATTR {
    hn::StoreU(load_values(d, from + c), d, to + c);
  });
}

// round_to_bfloat16 and round_to_float16 of vectors, all but the sign.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V rounded_magnitude(D d, V magnitude, V random, BFloat16) {
  const V sum = hn::Min(hn::Add(magnitude, hn::ShiftRight<16>(random)), hn::Set(d, kInfinity - 1));
  const V upper = hn::ShiftRight<16>(magnitude);
  const V special = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d, kInfinity)),
                                   hn::Or(upper, hn::Set(d, 0x40)), upper);
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, kInfinity)), hn::ShiftRight<16>(sum), special);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE V rounded_magnitude(D d, V magnitude, V random, Float16) {
  const hn::RebindToFloat<D> floats;
  const hn::RebindToSigned<D> integers;
  const V exponent = hn::ShiftRight<23>(magnitude), largest = hn::Set(d, kLargestSubnormal);
  // Whole units of 2^-45: what a shift by the exponent leaves of the significand. (Highway's Shr of
  // one lane takes its count from two.)
  const V below_normal = hn::Min(magnitude, hn::Set(d, ((kLargestSubnormal + 1) << 23) - 1));
  const auto scaled = hn::Mul(hn::BitCast(floats, below_normal), hn::Set(floats, 0x1p45f));
  const V units = hn::BitCast(d, hn::ConvertTo(integers, scaled));
  const V subnormal = hn::ShiftRight<21>(hn::Add(units, hn::ShiftRight<11>(random)));
  const V rebiased = hn::Sub(magnitude, hn::Set(d, kRebias));
  const V normal = hn::Min(hn::ShiftRight<13>(hn::Add(rebiased, hn::ShiftRight<19>(random))),
                           hn::Set(d, 0x7BFF));
  const V finite = hn::IfThenElse(hn::Gt(exponent, largest), normal, subnormal);
  const V special = hn::IfThenElse(hn::Gt(magnitude, hn::Set(d, kInfinity)), hn::Set(d, 0x7E00),
                                   hn::Set(d, 0x7C00));
  return hn::IfThenElse(hn::Lt(magnitude, hn::Set(d, kInfinity)), finite, special);
}

// `random` has a word for each column.
template <class Value>
HWY_INLINE void round_row(const float* from, const std::uint32_t* random, std::int64_t cols,
                          Value* to) {
  for_each_vector<0>(0, cols, [=](auto d, std::int64_t c) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(d)> words;
    const hn::RebindToSigned<decltype(d)> integers;
    const hn::Rebind<std::uint16_t, decltype(d)> halves;
    const auto word = hn::BitCast(words, hn::LoadU(d, from + c));
    const auto sign = hn::And(hn::ShiftRight<16>(word), hn::Set(words, 0x8000));
    const auto magnitude = rounded_magnitude(words, hn::And(word, hn::Set(words, kMagnitudeBits)),
                                             hn::LoadU(words, random + c), Value());
    hn::StoreU(hn::DemoteTo(halves, hn::BitCast(integers, hn::Or(sign, magnitude))), halves,
               reinterpret_cast<std::uint16_t*>(to + c));
  });
}

// The weights of a table, on the host, as an update changes them: load() has those of a row as
// floats, to be changed in place, and store() puts them back. Here rows are floats.
template <int kVectors>
class FloatRows {
 public:
  explicit FloatRows(const OutputMatrix& table) : table_(table) {}

  HWY_INLINE void prefetch(std::int64_t r) const { prefetch_row<kVectors>(row(r), table_.cols); }
  HWY_INLINE float* load(std::int64_t r) const { return row(r); }
  HWY_INLINE void store(std::int64_t) const {}

 private:
  HWY_INLINE float* row(std::int64_t r) const {
    return static_cast<float*>(table_.device_data()) + r * table_.stride;
  }

  OutputMatrix table_;
};

// Rows of 16 bits a column: rounded at random when they are stored. load() and store() are not
// inlined, so that they are compiled once and not for each optimizer and width.
template <class Value>
class RoundedRows {
 public:
  RoundedRows(const OutputMatrix& table, const TableRounding& rounding, std::int64_t step)
      : table_(table),
        draw_(rounding_draw(rounding, step)),
        rounding_(rounding),
        weights_(table_.cols),
        words_(table_.cols + 3 + kWordsAtOnce) {}

  HWY_INLINE void prefetch(std::int64_t r) const {
    prefetch_row<0>(reinterpret_cast<const float*>(row(r)), (table_.cols + 1) / 2);
  }
  HWY_NOINLINE float* load(std::int64_t r) {
    widen_row(row(r), table_.cols, weights_.data());
    return weights_.data();
  }
  HWY_NOINLINE void store(std::int64_t r) {
    // Words are drawn from a multiple of 4 of the whole table's columns on.
    const std::int64_t skipped = rounding_.column_begin % 4, end = skipped + table_.cols;
    for (std::int64_t c = 0; c < end; c += kWordsAtOnce) {
      draw_words(draw_, static_cast<std::uint64_t>(rounding_.row_begin + r),
                 rounding_.column_begin - skipped + c, words_.data() + c);
    }
    round_row(weights_.data(), words_.data() + skipped, table_.cols, row(r));
  }

 private:
  HWY_INLINE Value* row(std::int64_t r) const {
    return static_cast<Value*>(table_.device_data()) + r * table_.stride;
  }

  OutputMatrix table_;
  PhiloxDraw draw_;
  TableRounding rounding_;
  std::vector<float> weights_;
  std::vector<std::uint32_t> words_;
};

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_EMBEDDING_TABLE_ROWS_INL_H_
