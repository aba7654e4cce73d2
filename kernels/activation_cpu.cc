#include <cmath>
#include <numbers>

#include "serrate/kernels/activation.h"

namespace serrate {
namespace {

float sigmoid(float x) {
  return 1 / (1 + std::exp(-x));
}
float normal_cdf(float x) {
  return 0.5f * (1 + std::erf(x * (std::numbers::sqrt2_v<float> / 2)));
}

float value(Activation f, float x) {
  switch (f) {
    case Activation::kGelu:
      return x * normal_cdf(x);
    case Activation::kRelu:
      return x > 0 ? x : 0;
    default:
      return x * sigmoid(x);
  }
}

float derivative(Activation f, float x) {
  switch (f) {
    case Activation::kGelu: {
      constexpr float kInverseSqrtTwoPi = 0.3989422804f;
      return normal_cdf(x) + x * kInverseSqrtTwoPi * std::exp(-0.5f * x * x);
    }
    case Activation::kRelu:
      return x > 0 ? 1 : 0;
    default: {
      const float s = sigmoid(x);
      return s * (1 + x * (1 - s));
    }
  }
}

}  // namespace

template <>
void activation_forward_on<DeviceType::kCpu>(Activation f, MatrixView<const float> x,
                                             MatrixView<float> y, const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) y.row(r)[c] = value(f, x.row(r)[c]);
  }
}

template <>
void activation_backward_on<DeviceType::kCpu>(Activation f, MatrixView<const float> x,
                                              MatrixView<const float> d_y, MatrixView<float> d_x,
                                              const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = 0; c < x.cols; ++c) {
      d_x.row(r)[c] = derivative(f, x.row(r)[c]) * d_y.row(r)[c];
    }
  }
}

}  // namespace serrate
