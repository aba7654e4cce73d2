#include "serrate/kernels/activation.h"

#include "kernels/shapes.h"
#include "kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation_cpu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/simd_math-inl.h"
#include "kernels/simd_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

HWY_INLINE FloatVector Constant(float value) {
  return hn::Set(kFloats, value);
}

struct Normal {
  FloatVector density_factor;  // exp(-x^2 / 2), sqrt(2 pi) times the density
  FloatVector cdf;             // within 2e-7
};

// erfc(z) = t P(t) exp(-z^2), t = 1 / (1 + p z), for z >= 0: Abramowitz & Stegun 7.1.26. It shares
// the exponential with the density, which is all the derivative needs more.
HWY_INLINE Normal StandardNormal(FloatVector x) {
  const FloatVector z = hn::Mul(hn::Abs(x), Constant(0.707106781f));
  const FloatVector t = hn::Div(Constant(1), hn::MulAdd(z, Constant(0.3275911f), Constant(1)));
  FloatVector p = hn::MulAdd(t, Constant(1.061405429f), Constant(-1.453152027f));
  p = hn::MulAdd(p, t, Constant(1.421413741f));
  p = hn::MulAdd(p, t, Constant(-0.284496736f));
  p = hn::MulAdd(p, t, Constant(0.254829592f));
  const FloatVector density_factor = Exp(kFloats, hn::Neg(hn::Mul(z, z)));
  const FloatVector tail = hn::Mul(hn::Mul(Constant(0.5f), hn::Mul(p, t)), density_factor);
  const auto is_left = hn::Lt(x, hn::Zero(kFloats));
  return {density_factor, hn::IfThenElse(is_left, tail, hn::Sub(Constant(1), tail))};
}

HWY_INLINE FloatVector Sigmoid(FloatVector x) {
  return hn::Div(Constant(1), hn::Add(Constant(1), Exp(kFloats, hn::Neg(x))));
}

struct Gelu {
  HWY_INLINE FloatVector Value(FloatVector x) const { return hn::Mul(x, StandardNormal(x).cdf); }
  HWY_INLINE FloatVector Derivative(FloatVector x) const {
    const Normal normal = StandardNormal(x);
    const FloatVector x_density = hn::Mul(hn::Mul(x, Constant(0.39894228f)), normal.density_factor);
    return hn::Add(normal.cdf, x_density);
  }
};

struct Relu {  // a NaN stays one
  HWY_INLINE FloatVector Value(FloatVector x) const {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(kFloats)), x);
  }
  HWY_INLINE FloatVector Derivative(FloatVector x) const {
    return hn::IfThenElseZero(hn::Gt(x, hn::Zero(kFloats)), Constant(1));
  }
};

struct Silu {
  HWY_INLINE FloatVector Value(FloatVector x) const { return hn::Mul(x, Sigmoid(x)); }
  HWY_INLINE FloatVector Derivative(FloatVector x) const {
    const FloatVector s = Sigmoid(x);
    return hn::Mul(s, hn::MulAdd(x, hn::Sub(Constant(1), s), Constant(1)));
  }
};

template <typename F>
void ForwardRows(F f, MatrixView<const float> x, MatrixView<float> y, RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    ForEachVector(x.cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
      lanes.Store(f.Value(lanes.Load(x.row(r) + c)), y.row(r) + c);
    });
  }
}

template <typename F>
void BackwardRows(F f, MatrixView<const float> x, MatrixView<const float> d_y,
                  MatrixView<float> d_x, RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    ForEachVector(x.cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector derivative = f.Derivative(lanes.Load(x.row(r) + c));
      lanes.Store(hn::Mul(derivative, lanes.Load(d_y.row(r) + c)), d_x.row(r) + c);
    });
  }
}

void ActivationForward(Activation f, MatrixView<const float> x, MatrixView<float> y,
                       RowRange rows) {
  switch (f) {
    case Activation::kGelu:
      return ForwardRows(Gelu(), x, y, rows);
    case Activation::kRelu:
      return ForwardRows(Relu(), x, y, rows);
    case Activation::kSilu:
      return ForwardRows(Silu(), x, y, rows);
  }
}

void ActivationBackward(Activation f, MatrixView<const float> x, MatrixView<const float> d_y,
                        MatrixView<float> d_x, RowRange rows) {
  switch (f) {
    case Activation::kGelu:
      return BackwardRows(Gelu(), x, d_y, d_x, rows);
    case Activation::kRelu:
      return BackwardRows(Relu(), x, d_y, d_x, rows);
    case Activation::kSilu:
      return BackwardRows(Silu(), x, d_y, d_x, rows);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(ActivationForward);
HWY_EXPORT(ActivationBackward);

template <>
void activation_forward_on<DeviceType::kCpu>(Activation f, MatrixView<const float> x,
                                             MatrixView<float> y, const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(x.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(ActivationForward)(f, x, y, rows_of_chunk(chunk, x.rows));
  }
}

template <>
void activation_backward_on<DeviceType::kCpu>(Activation f, MatrixView<const float> x,
                                              MatrixView<const float> d_y, MatrixView<float> d_x,
                                              const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(x.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(ActivationBackward)(f, x, d_y, d_x, rows_of_chunk(chunk, x.rows));
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
