#pragma once

#include <optional>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/kernels/dropout.h"
#include "serrate/kernels/token_embedding.h"
#include "serrate/stream.h"

namespace serrate {

/// What x is made of ahead of its norm, as by token_embedding_forward(), if there are tokens, and
/// dropout_forward(); on a GPU in one launch with it.
struct LayerNormSum {
  DropoutKey key;
  InputMatrix branch;                  ///< [n, dim], or no data: x is there
  DeviceMatrix<const float> residual;  ///< [n, dim], or no data
  DeviceMatrix<float> sum;             ///< the memory of x; may be that of branch or residual
  std::optional<TokenEmbeddingForward> tokens = {};  ///< whose x are branch and sum
};

/// y = (x - mean) / sqrt(variance + eps) * gamma + beta over each row (Ba et al. 2016). On a GPU
/// rows have at most 4,096 columns.
struct LayerNormForward {
  DeviceMatrix<const float> x;          ///< [n, dim]
  DeviceSpan<const float> gamma, beta;  ///< [dim]
  OutputMatrix y;                       ///< [n, dim]
  DeviceSpan<float> mean, rstd;         ///< [n], kept for the backward
  float eps = 1e-5f;
  LayerNormSum sum = {};
};

/// d_x += with kAccumulate (the residual path joins here), else =; d_gamma, d_beta +=.
struct LayerNormBackward {
  DeviceMatrix<const float> x;
  InputMatrix d_y;
  DeviceSpan<const float> gamma, mean, rstd;
  DeviceMatrix<float> d_x;
  DeviceSpan<float> d_gamma, d_beta;  ///< [dim]
  enum class Write { kOverwrite, kAccumulate } write = Write::kOverwrite;
  /// The gradient of the branch of x's sum, if wanted, as by dropout_backward() of d_x. May be the
  /// memory of d_y or d_x, if of the same type and stride.
  DropoutKey key = {};
  OutputMatrix d_branch = {};  ///< [n, dim], or no data
  /// [dim], or empty: += the column sums of d_branch before it is rounded, the gradient of the bias
  /// of a linear layer that made the branch.
  DeviceSpan<float> d_bias = {};
};

void layer_norm_forward(const LayerNormForward& args, const Stream& stream);
void layer_norm_backward(const LayerNormBackward& args, const Stream& stream);

template <DeviceType D>
void layer_norm_forward_on(const LayerNormForward&, const Stream&);
template <DeviceType D>
void layer_norm_backward_on(const LayerNormBackward&, const Stream&);

}  // namespace serrate
