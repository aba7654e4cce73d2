#include "serrate/kernels/activation.h"

#include "kernels/shapes.h"
#include "kernels/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/activation.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/math-inl.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

HWY_INLINE FloatVector constant(float value) {
  return hn::Set(kFloats, value);
}

struct Normal {
  FloatVector density_factor;  // exp(-x^2 / 2), sqrt(2 pi) times the density
  FloatVector cdf;             // within 2e-7
};

// erfc(z) = t P(t) exp(-z^2), t = 1 / (1 + p z), for z >= 0: Abramowitz & Stegun 7.1.26. It shares
// the exponential with the density, which is all the derivative needs more.
HWY_INLINE Normal standard_normal(FloatVector x) {
  const FloatVector z = hn::Mul(hn::Abs(x), constant(0.707106781f));
  const FloatVector t = hn::Div(constant(1), hn::MulAdd(z, constant(0.3275911f), constant(1)));
  FloatVector p = hn::MulAdd(t, constant(1.061405429f), constant(-1.453152027f));
  p = hn::MulAdd(p, t, constant(1.421413741f));
  p = hn::MulAdd(p, t, constant(-0.284496736f));
  p = hn::MulAdd(p, t, constant(0.254829592f));
  const FloatVector density_factor = Exp(kFloats, hn::Neg(hn::Mul(z, z)));
  const FloatVector tail = hn::Mul(hn::Mul(constant(0.5f), hn::Mul(p, t)), density_factor);
  const auto is_left = hn::Lt(x, hn::Zero(kFloats));
  return {density_factor, hn::IfThenElse(is_left, tail, hn::Sub(constant(1), tail))};
}

HWY_INLINE FloatVector sigmoid(FloatVector x) {
  return hn::Div(constant(1), hn::Add(constant(1), Exp(kFloats, hn::Neg(x))));
}

struct Gelu {
  HWY_INLINE FloatVector value(FloatVector x) const { return hn::Mul(x, standard_normal(x).cdf); }
  HWY_INLINE FloatVector derivative(FloatVector x) const {
    const Normal normal = standard_normal(x);
    const FloatVector x_density = hn::Mul(hn::Mul(x, constant(0.39894228f)), normal.density_factor);
    return hn::Add(normal.cdf, x_density);
  }
};

// (1 + tanh(z)) / 2 = sigmoid(2 z). Beyond 10 both ends are reached in float32, and the square of x
// would overflow.
struct GeluTanh {
  struct Gate {
    FloatVector x;             // at most 10 in size
    FloatVector decay, value;  // exp(-2 z), sigmoid(2 z)
  };
  HWY_INLINE static Gate gate(FloatVector x) {
    const auto is_far = hn::Gt(hn::Abs(x), constant(10));
    const FloatVector near = hn::IfThenElse(is_far, hn::CopySign(constant(10), x), x);
    const FloatVector cubic = hn::MulAdd(hn::Mul(near, near), constant(0.044715f), constant(1));
    const FloatVector z2 = hn::Mul(hn::Mul(near, constant(1.595769122f)), cubic);
    const FloatVector decay = Exp(kFloats, hn::Neg(z2));
    return {near, decay, hn::Div(constant(1), hn::Add(constant(1), decay))};
  }
  HWY_INLINE FloatVector value(FloatVector x) const { return hn::Mul(x, gate(x).value); }
  HWY_INLINE FloatVector derivative(FloatVector x) const {
    const Gate g = gate(x);
    const FloatVector slope =  // of 2 z
        hn::MulAdd(hn::Mul(g.x, g.x), constant(0.214070973f), constant(1.595769122f));
    const FloatVector rest = hn::Mul(g.decay, g.value);  // 1 - sigmoid(2 z)
    return hn::Mul(g.value, hn::MulAdd(hn::Mul(g.x, slope), rest, constant(1)));
  }
};

struct Relu {  // a NaN stays one
  HWY_INLINE FloatVector value(FloatVector x) const {
    return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(kFloats)), x);
  }
  HWY_INLINE FloatVector derivative(FloatVector x) const {
    return hn::IfThenElseZero(hn::Gt(x, hn::Zero(kFloats)), constant(1));
  }
};

struct Silu {
  HWY_INLINE FloatVector value(FloatVector x) const { return hn::Mul(x, sigmoid(x)); }
  HWY_INLINE FloatVector derivative(FloatVector x) const {
    const FloatVector s = sigmoid(x);
    return hn::Mul(s, hn::MulAdd(x, hn::Sub(constant(1), s), constant(1)));
  }
};

template <typename F>
void forward_rows(F f, MatrixView<const float> x, MatrixView<float> y, RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    for_each_vector(x.cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
      lanes.store(f.value(lanes.load(x.row(r) + c)), y.row(r) + c);
    });
  }
}

template <typename F>
void backward_rows(F f, MatrixView<const float> x, MatrixView<const float> d_y,
                   MatrixView<float> d_x, RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    for_each_vector(x.cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector derivative = f.derivative(lanes.load(x.row(r) + c));
      lanes.store(hn::Mul(derivative, lanes.load(d_y.row(r) + c)), d_x.row(r) + c);
    });
  }
}

void activation_forward_rows(Activation f, MatrixView<const float> x, MatrixView<float> y,
                             RowRange rows) {
  switch (f) {
    case Activation::kGelu:
      return forward_rows(Gelu(), x, y, rows);
    case Activation::kGeluTanh:
      return forward_rows(GeluTanh(), x, y, rows);
    case Activation::kRelu:
      return forward_rows(Relu(), x, y, rows);
    case Activation::kSilu:
      return forward_rows(Silu(), x, y, rows);
  }
}

void activation_backward_rows(Activation f, MatrixView<const float> x, MatrixView<const float> d_y,
                              MatrixView<float> d_x, RowRange rows) {
  switch (f) {
    case Activation::kGelu:
      return backward_rows(Gelu(), x, d_y, d_x, rows);
    case Activation::kGeluTanh:
      return backward_rows(GeluTanh(), x, d_y, d_x, rows);
    case Activation::kRelu:
      return backward_rows(Relu(), x, d_y, d_x, rows);
    case Activation::kSilu:
      return backward_rows(Silu(), x, d_y, d_x, rows);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(activation_forward_rows);
HWY_EXPORT(activation_backward_rows);

template <>
void activation_forward_on<DeviceType::kCpu>(Activation f, const InputMatrix& x_rows,
                                             const OutputMatrix& y_rows, const Stream& stream) {
  const auto x = host_view(x_rows, stream);
  const auto y = host_view(y_rows, stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(x.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(activation_forward_rows)(f, x, y, rows_of_chunk(chunk, x.rows));
  }
}

template <>
void activation_backward_on<DeviceType::kCpu>(Activation f, const InputMatrix& x_rows,
                                              const InputMatrix& d_y_rows,
                                              const OutputMatrix& d_x_rows, const Stream& stream) {
  const auto x = host_view(x_rows, stream), d_y = host_view(d_y_rows, stream);
  const auto d_x = host_view(d_x_rows, stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(x.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(activation_backward_rows)(f, x, d_y, d_x, rows_of_chunk(chunk, x.rows));
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
