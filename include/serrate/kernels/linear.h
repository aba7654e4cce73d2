#pragma once

#include <span>

#include "serrate/matrix_view.h"
#include "serrate/stream.h"

namespace serrate {

/// y = x w^T + bias, all [rows, columns] row-major; weight is [out_features, in_features].
struct LinearForward {
  MatrixView<const float> x;       ///< [n, in]
  MatrixView<const float> weight;  ///< [out, in]
  std::span<const float> bias;     ///< [out], or empty
  MatrixView<float> y;             ///< [n, out]
};

/// d_x = d_y w (unless d_x has no data); d_weight += d_y^T x; d_bias += column sums of d_y.
struct LinearBackward {
  MatrixView<const float> x, weight, d_y;
  MatrixView<float> d_x, d_weight;
  std::span<float> d_bias;  ///< [out], or empty
};

void linear_forward(const LinearForward& args, const Stream& stream);
void linear_backward(const LinearBackward& args, const Stream& stream);

template <DeviceType D>
void linear_forward_on(const LinearForward&, const Stream&);
template <DeviceType D>
void linear_backward_on(const LinearBackward&, const Stream&);

}  // namespace serrate
