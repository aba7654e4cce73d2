// Elementwise: each value is read and written once.
#include "kernels/dense/cuda/activation.h"

#include "kernels/dense/cuda/column_sums.cuh"

namespace serrate {
namespace {

struct Gelu {
  static __device__ float cdf(float x) { return 0.5f * erfcf(-0.707106781f * x); }
  static __device__ float value(float x) { return x * cdf(x); }
  static __device__ float derivative(float x) {
    return fmaf(0.39894228f * x, expf(-0.5f * x * x), cdf(x));
  }
};

// (1 + tanh(z)) / 2 = sigmoid(2 z). Beyond 10 both ends are reached in float32, and the square of x
// would overflow.
struct GeluTanh {
  struct Gate {
    float x;             // at most 10 in size
    float decay, value;  // exp(-2 z), sigmoid(2 z)
  };
  static __device__ Gate gate(float x) {
    const float near = fabsf(x) > 10 ? copysignf(10, x) : x;
    const float decay = expf(-1.595769122f * near * fmaf(near * near, 0.044715f, 1.0f));
    return {near, decay, 1 / (1 + decay)};
  }
  static __device__ float value(float x) { return x * gate(x).value; }
  static __device__ float derivative(float x) {
    const Gate g = gate(x);
    const float slope = fmaf(g.x * g.x, 0.214070973f, 1.595769122f);  // of 2 z
    const float rest = g.decay * g.value;                             // 1 - sigmoid(2 z)
    return g.value * fmaf(g.x * slope, rest, 1.0f);
  }
};

struct Relu {  // a NaN stays one
  static __device__ float value(float x) { return x < 0 ? 0 : x; }
  static __device__ float derivative(float x) { return x > 0 ? 1 : 0; }
};

struct Silu {
  static __device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }
  static __device__ float value(float x) { return x * sigmoid(x); }
  static __device__ float derivative(float x) {
    const float s = sigmoid(x);
    return s * fmaf(x, 1 - s, 1.0f);
  }
};

template <class F, Access kAccess, typename T>
struct ActivationForward {
  Rows<const T> x;
  Rows<T> y;
  std::int64_t cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    const Four at = load_four<kAccess>(x.row(r), c, cols);
    const auto value = [](float v) { return F::value(v); };
    store_four<kAccess>(map_four(value, at), y.row(r), c, cols);
  }
};

template <class F, Access kAccess, typename T>
struct ActivationBackward {
  using Part = RowPart<1, kAccess>;
  Rows<const T> x, d_y;
  Rows<T> d_x;

  __device__ Part operator()(std::int64_t r, std::int64_t cols) const {
    const auto product = [](float a, float b) { return F::derivative(a) * b; };
    const Part d = map_row(product, Part::load(x.row(r), cols), Part::load(d_y.row(r), cols));
    d.store(d_x.row(r), cols);
    return d;
  }
};

template <typename F>
void with_function(Activation activation, F&& f) {
  switch (activation) {
    case Activation::kGelu:
      return f(Gelu());
    case Activation::kGeluTanh:
      return f(GeluTanh());
    case Activation::kRelu:
      return f(Relu());
    case Activation::kSilu:
      return f(Silu());
  }
}

}  // namespace

template <>
void activation_forward_on<DeviceType::kCuda>(Activation activation, const InputMatrix& x,
                                              const OutputMatrix& y, const Stream& stream) {
  const auto start = [&]<typename T>(auto f, DeviceMatrix<T> to) {
    const DeviceMatrix<const T> from = x.as<T>();
    with_access(
        [&](auto access) {
          const ActivationForward<decltype(f), access(), T> forward{rows_of(from), rows_of(to),
                                                                    to.cols};
          launch_for_each_four(to.rows, to.cols, forward, stream);
        },
        from, to);
  };
  with_function(activation,
                [&](auto f) { with_elements(y, [&](const auto& to) { start(f, to); }); });
}

void activation_backward_and_sum(Activation activation, const InputMatrix& x,
                                 const InputMatrix& d_y, const OutputMatrix& d_x,
                                 DeviceSpan<float> sums, const Stream& stream) {
  const auto start = [&]<typename F, typename T>(F, DeviceMatrix<T> to) {
    const DeviceMatrix<const T> at = x.as<T>(), from = d_y.as<T>();
    const auto make = [&](auto access, std::int64_t begin, std::int64_t end) {
      return ActivationBackward<F, access(), T>{rows_of(at.columns(begin, end)),
                                                rows_of(from.columns(begin, end)),
                                                rows_of(to.columns(begin, end))};
    };
    launch_column_sums(sums, stream, make, at, from, to);
  };
  with_function(activation,
                [&](auto f) { with_elements(d_x, [&](const auto& to) { start(f, to); }); });
}

template <>
void activation_backward_on<DeviceType::kCuda>(Activation activation, const InputMatrix& x,
                                               const InputMatrix& d_y, const OutputMatrix& d_x,
                                               const Stream& stream) {
  activation_backward_and_sum(activation, x, d_y, d_x, {}, stream);
}

}  // namespace serrate
