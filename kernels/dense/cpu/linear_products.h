#pragma once

#include "serrate/kernels/linear.h"

namespace serrate {

/// What the sides of a weight have to be multiples of here: whole vectors on any target.
inline constexpr std::int64_t kWholeSide = 16;

/// LinearForward and LinearBackward as the CPU reads them.
struct HostLinearForward {
  MatrixView<const float> x, weight;
  std::span<const float> bias;
  MatrixView<float> y;
};
struct HostLinearBackward {
  MatrixView<const float> x, weight, d_y;
  MatrixView<float> d_x, d_weight;
  std::span<float> d_bias;
};

/// linear_forward and linear_backward on the CPU. Every element is one sum in the order of columns
/// or rows: its bits depend neither on threads nor on the rest of the batch.
void whole_linear_forward(const HostLinearForward& args, const Stream& stream);
void whole_linear_backward(const HostLinearBackward& args, const Stream& stream);

}  // namespace serrate
