#pragma once

#include "serrate/kernels/feed_forward.h"

namespace serrate {

// The two layers of a feed-forward, as calls of linear.h's.

/// `y` is the activation's arguments, or `activated` where the product applies the activation.
inline LinearForward up_layer(const FeedForward& args, const OutputMatrix& y) {
  return {
      .x = args.x, .weight = args.up, .bias = args.up_bias, .y = y, .precision = args.precision};
}

inline LinearForward down_layer(const FeedForward& args) {
  return {.x = args.activated,
          .weight = args.down,
          .bias = args.down_bias,
          .y = args.y,
          .precision = args.precision};
}

/// d_x is what d_y makes of `activated`, before the activation's derivative.
inline LinearBackward down_gradients(const FeedForwardBackward& args) {
  return {.x = args.forward.activated,
          .weight = args.forward.down,
          .d_y = args.d_y,
          .d_x = args.d_activated,
          .d_weight = args.d_down,
          .d_bias = args.d_down_bias,
          .precision = args.forward.precision};
}

/// d_y is the gradient of the activation's arguments.
inline LinearBackward up_gradients(const FeedForwardBackward& args) {
  return {.x = args.forward.x,
          .weight = args.forward.up,
          .d_y = args.d_activated,
          .d_x = args.d_x,
          .d_weight = args.d_up,
          .d_bias = args.d_up_bias,
          .precision = args.forward.precision};
}

/// What is kept, where that is the activation's arguments.
inline OutputMatrix kept_arguments(const FeedForward& args) {
  return {args.kept.device_data(), args.activated.type, args.activated.rows, args.activated.cols};
}

}  // namespace serrate
