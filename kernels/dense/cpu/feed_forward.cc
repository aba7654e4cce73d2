// Layer by layer; what is kept are the activation's arguments.
#include "serrate/kernels/feed_forward.h"

#include "kernels/dense/feed_forward_layers.h"

namespace serrate {

template <>
std::int64_t feed_forward_kept_bytes_on<DeviceType::kCpu>(Activation, std::int64_t n,
                                                          std::int64_t wide, DataType type) {
  return n * wide * size_of(type);
}

template <>
void feed_forward_on<DeviceType::kCpu>(const FeedForward& args, const Stream& stream) {
  linear_forward(up_layer(args, kept_arguments(args)), stream);
  activation_forward(args.activation, kept_arguments(args), args.activated, stream);
  linear_forward(down_layer(args), stream);
}

template <>
void feed_forward_backward_on<DeviceType::kCpu>(const FeedForwardBackward& args,
                                                const Stream& stream) {
  linear_backward(down_gradients(args), stream);
  activation_backward(args.forward.activation, kept_arguments(args.forward), args.d_activated,
                      args.d_activated, stream);
  linear_backward(up_gradients(args), stream);
}

}  // namespace serrate
