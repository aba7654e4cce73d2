// Elementwise: each value is read and written once.
#include "kernels/cuda/fours.cuh"
#include "serrate/kernels/activation.h"

namespace serrate {
namespace {

struct Gelu {
  static __device__ float cdf(float x) { return 0.5f * erfcf(-0.707106781f * x); }
  static __device__ float value(float x) { return x * cdf(x); }
  static __device__ float derivative(float x) {
    return fmaf(0.39894228f * x, expf(-0.5f * x * x), cdf(x));
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
  Rows<const T> x, d_y;
  Rows<T> d_x;
  std::int64_t cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    const Four at = load_four<kAccess>(x.row(r), c, cols);
    const Four d = load_four<kAccess>(d_y.row(r), c, cols);
    const auto product = [](float a, float b) { return F::derivative(a) * b; };
    store_four<kAccess>(map_four(product, at, d), d_x.row(r), c, cols);
  }
};

template <typename F>
void with_function(Activation activation, F&& f) {
  switch (activation) {
    case Activation::kGelu:
      return f(Gelu());
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

template <>
void activation_backward_on<DeviceType::kCuda>(Activation activation, const InputMatrix& x,
                                               const InputMatrix& d_y, const OutputMatrix& d_x,
                                               const Stream& stream) {
  const auto start = [&]<typename T>(auto f, DeviceMatrix<T> to) {
    const DeviceMatrix<const T> at = x.as<T>(), from = d_y.as<T>();
    with_access(
        [&](auto access) {
          const ActivationBackward<decltype(f), access(), T> backward{rows_of(at), rows_of(from),
                                                                      rows_of(to), to.cols};
          launch_for_each_four(to.rows, to.cols, backward, stream);
        },
        at, from, to);
  };
  with_function(activation,
                [&](auto f) { with_elements(d_x, [&](const auto& to) { start(f, to); }); });
}

}  // namespace serrate
