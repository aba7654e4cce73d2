#pragma once

#include <span>

#include "serrate/matrix_view.h"
#include "serrate/stream.h"

namespace serrate {

/// y = (x - mean) / sqrt(variance + eps) * gamma + beta over each row (Ba et al. 2016).
struct LayerNormForward {
  MatrixView<const float> x;           ///< [n, dim]
  std::span<const float> gamma, beta;  ///< [dim]
  MatrixView<float> y;                 ///< [n, dim]
  std::span<float> mean, rstd;         ///< [n], kept for the backward
  float eps = 1e-5f;
};

/// d_x += when `accumulate` (the residual path joins here), else =; d_gamma, d_beta +=.
struct LayerNormBackward {
  MatrixView<const float> x, d_y;
  std::span<const float> gamma, mean, rstd;
  MatrixView<float> d_x;
  std::span<float> d_gamma, d_beta;  ///< [dim]
  enum class Write { kOverwrite, kAccumulate } write = Write::kOverwrite;
};

void layer_norm_forward(const LayerNormForward& args, const Stream& stream);
void layer_norm_backward(const LayerNormBackward& args, const Stream& stream);

template <DeviceType D>
void layer_norm_forward_on(const LayerNormForward&, const Stream&);
template <DeviceType D>
void layer_norm_backward_on(const LayerNormBackward&, const Stream&);

}  // namespace serrate
