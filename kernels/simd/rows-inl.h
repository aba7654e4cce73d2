// Loops over the floats of a row with Highway vectors, the last of them in part. Include after
// hwy/highway.h in a file that foreach_target.h compiles once per target.
#if defined(SERRATE_KERNELS_SIMD_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SERRATE_KERNELS_SIMD_ROWS_INL_H_
#undef SERRATE_KERNELS_SIMD_ROWS_INL_H_
#else
#define SERRATE_KERNELS_SIMD_ROWS_INL_H_
#endif

#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Floats = hn::ScalableTag<float>;
using FloatVector = hn::Vec<Floats>;

inline constexpr Floats kFloats;

/// All lanes of a vector.
struct WholeVector {
  HWY_INLINE FloatVector load(const float* from) const { return hn::LoadU(kFloats, from); }
  HWY_INLINE void store(FloatVector v, float* to) const { hn::StoreU(v, kFloats, to); }
  /// v in these lanes, the other in the rest.
  HWY_INLINE FloatVector select(FloatVector v, FloatVector /*other*/) const { return v; }
};

/// The first lanes of a vector; memory behind them is not touched.
class PartVector {
 public:
  explicit HWY_INLINE PartVector(std::int64_t size)
      : mask_(hn::FirstN(kFloats, static_cast<std::size_t>(size))) {}
  HWY_INLINE FloatVector load(const float* from) const {
    return hn::MaskedLoad(mask_, kFloats, from);
  }
  HWY_INLINE void store(FloatVector v, float* to) const { hn::BlendedStore(v, mask_, kFloats, to); }
  HWY_INLINE FloatVector select(FloatVector v, FloatVector other) const {
    return hn::IfThenElse(mask_, v, other);
  }

 private:
  hn::Mask<Floats> mask_;
};

/// f(lanes, c) for each vector of a row of `size` floats, c being its first column.
template <typename F>
HWY_INLINE void for_each_vector(std::int64_t size, const F& f) {
  constexpr std::int64_t step = hn::MaxLanes(kFloats);
  std::int64_t c = 0;
  for (; c + step <= size; c += step) f(WholeVector(), c);
  if (c < size) f(PartVector(size - c), c);
}

HWY_INLINE float sum_lanes(FloatVector v) {
  return hn::GetLane(hn::SumOfLanes(kFloats, v));
}

HWY_INLINE float dot(const float* a, const float* b, std::int64_t size) {
  FloatVector sum = hn::Zero(kFloats);
  for_each_vector(size, [&](auto lanes, std::int64_t c) HWY_ATTR {
    sum = hn::MulAdd(lanes.load(a + c), lanes.load(b + c), sum);
  });
  return sum_lanes(sum);
}

/// y += x
HWY_INLINE void add_row(const float* x, float* y, std::int64_t size) {
  for_each_vector(size, [&](auto lanes, std::int64_t c) HWY_ATTR {
    lanes.store(hn::Add(lanes.load(x + c), lanes.load(y + c)), y + c);
  });
}

/// y = a x
HWY_INLINE void scale_row(float a, const float* x, float* y, std::int64_t size) {
  const FloatVector factor = hn::Set(kFloats, a);
  for_each_vector(size, [&](auto lanes, std::int64_t c)
                            HWY_ATTR { lanes.store(hn::Mul(factor, lanes.load(x + c)), y + c); });
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SERRATE_KERNELS_SIMD_ROWS_INL_H_
