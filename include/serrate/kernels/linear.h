#pragma once

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

/// y = x w^T + bias, all [rows, columns] row-major; weight is [out_features, in_features].
struct LinearForward {
  DeviceMatrix<const float> x;       ///< [n, in]
  DeviceMatrix<const float> weight;  ///< [out, in]
  DeviceSpan<const float> bias;      ///< [out], or empty
  DeviceMatrix<float> y;             ///< [n, out]
};

/// d_x = d_y w (unless d_x has no data); d_weight += d_y^T x; d_bias += column sums of d_y.
struct LinearBackward {
  DeviceMatrix<const float> x, weight, d_y;
  DeviceMatrix<float> d_x, d_weight;
  DeviceSpan<float> d_bias;  ///< [out], or empty
};

void linear_forward(const LinearForward& args, const Stream& stream);
void linear_backward(const LinearBackward& args, const Stream& stream);

template <DeviceType D>
void linear_forward_on(const LinearForward&, const Stream&);
template <DeviceType D>
void linear_backward_on(const LinearBackward&, const Stream&);

}  // namespace serrate
