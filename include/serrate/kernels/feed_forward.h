#pragma once

#include <cstddef>

#include "serrate/any_matrix.h"
#include "serrate/device_span.h"
#include "serrate/kernels/activation.h"
#include "serrate/kernels/linear.h"
#include "serrate/stream.h"

namespace serrate {

/// Two linear layers with an activation between: activated = f(x up^T + up_bias), y = activated
/// down^T + down_bias. Types as in linear.h. On a GPU relu and gelu_tanh are part of the products,
/// forward and backward, where `wide` is a multiple of 8; there relu makes 0 of a NaN.
struct FeedForward {
  InputMatrix x;                ///< [n, in]
  InputMatrix up, up_bias;      ///< [wide, in], [1, wide]
  InputMatrix down, down_bias;  ///< [out, wide], [1, out]
  Activation activation = Activation::kGelu;
  Precision precision = Precision::kFp32;
  DeviceSpan<std::byte> kept;  ///< for the backward: feed_forward_kept_bytes(), aligned to 16
  OutputMatrix activated;      ///< [n, wide]
  OutputMatrix y;              ///< [n, out]
};

/// Adds to the gradients of parameters, as linear_backward().
struct FeedForwardBackward {
  FeedForward forward;       ///< as it ran; y is not read
  InputMatrix d_y;           ///< [n, out]
  OutputMatrix d_activated;  ///< [n, wide]: becomes the gradient of f's arguments
  OutputMatrix d_x;          ///< [n, in]; may be the memory of d_y
  DeviceMatrix<float> d_up, d_down;
  DeviceSpan<float> d_up_bias;
  DeviceSpan<float> d_down_bias = {};  ///< or empty, as where layer_norm_backward() sums it
};

/// The bytes that `kept` needs for `n` rows whose activations are stored in `type`.
std::int64_t feed_forward_kept_bytes(Activation f, std::int64_t n, std::int64_t wide, DataType type,
                                     Device device);

void feed_forward(const FeedForward& args, const Stream& stream);
void feed_forward_backward(const FeedForwardBackward& args, const Stream& stream);

template <DeviceType D>
std::int64_t feed_forward_kept_bytes_on(Activation, std::int64_t, std::int64_t, DataType);
template <DeviceType D>
void feed_forward_on(const FeedForward&, const Stream&);
template <DeviceType D>
void feed_forward_backward_on(const FeedForwardBackward&, const Stream&);

}  // namespace serrate
