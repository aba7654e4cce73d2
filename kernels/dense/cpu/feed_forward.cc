// Layer by layer; what is kept are the activation's arguments.
#include "serrate/kernels/feed_forward.h"

namespace serrate {
namespace {

OutputMatrix arguments(const FeedForward& args) {
  return {args.kept.device_data(), args.activated.type, args.activated.rows, args.activated.cols};
}

}  // namespace

template <>
std::int64_t feed_forward_kept_bytes_on<DeviceType::kCpu>(Activation, std::int64_t n,
                                                          std::int64_t wide, DataType type) {
  return n * wide * size_of(type);
}

template <>
void feed_forward_on<DeviceType::kCpu>(const FeedForward& args, const Stream& stream) {
  linear_forward({.x = args.x,
                  .weight = args.up,
                  .bias = args.up_bias,
                  .y = arguments(args),
                  .precision = args.precision},
                 stream);
  activation_forward(args.activation, arguments(args), args.activated, stream);
  linear_forward({.x = args.activated,
                  .weight = args.down,
                  .bias = args.down_bias,
                  .y = args.y,
                  .precision = args.precision},
                 stream);
}

template <>
void feed_forward_backward_on<DeviceType::kCpu>(const FeedForwardBackward& args,
                                                const Stream& stream) {
  const FeedForward& forward = args.forward;
  linear_backward({.x = forward.activated,
                   .weight = forward.down,
                   .d_y = args.d_y,
                   .d_x = args.d_activated,
                   .d_weight = args.d_down,
                   .d_bias = args.d_down_bias,
                   .precision = forward.precision},
                  stream);
  activation_backward(forward.activation, arguments(forward), args.d_activated, args.d_activated,
                      stream);
  linear_backward({.x = forward.x,
                   .weight = forward.up,
                   .d_y = args.d_activated,
                   .d_x = args.d_x,
                   .d_weight = args.d_up,
                   .d_bias = args.d_up_bias,
                   .precision = forward.precision},
                  stream);
}

}  // namespace serrate
