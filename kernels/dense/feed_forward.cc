#include "serrate/kernels/feed_forward.h"

#include <cstdint>

#include "kernels/dense/feed_forward_layers.h"
#include "kernels/dense/linear_checks.h"
#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_kept(const FeedForward& args, Device device) {
  const std::int64_t needed = feed_forward_kept_bytes(
      args.activation, args.activated.rows, args.activated.cols, args.activated.type, device);
  check(static_cast<std::int64_t>(args.kept.size()) >= needed &&
            reinterpret_cast<std::uintptr_t>(args.kept.device_data()) % 16 == 0,
        "feed_forward: kept must have the bytes of feed_forward_kept_bytes(), aligned to 16");
}

// Both layers' arguments, ahead of all work: on a GPU not every product is a call of linear's.
void check_forward(const FeedForward& args, Device device) {
  check_linear_forward(up_layer(args, args.activated), device);
  check_linear_forward(down_layer(args), device);
  check_kept(args, device);
}

void check_backward(const FeedForwardBackward& args, Device device) {
  check(same_shape(args.d_activated, args.forward.activated),
        "feed_forward: d_activated must have the shape of activated");
  check_linear_backward(down_gradients(args), device);
  check_linear_backward(up_gradients(args), device);
  check_kept(args.forward, device);
}

}  // namespace

std::int64_t feed_forward_kept_bytes(Activation f, std::int64_t n, std::int64_t wide, DataType type,
                                     Device device) {
  return dispatch_device(device,
                         [&](auto d) { return feed_forward_kept_bytes_on<d()>(f, n, wide, type); });
}

void feed_forward(const FeedForward& args, const Stream& stream) {
  check_forward(args, stream.device());
  dispatch_device(stream.device(), [&](auto d) { feed_forward_on<d()>(args, stream); });
}

void feed_forward_backward(const FeedForwardBackward& args, const Stream& stream) {
  check_backward(args, stream.device());
  dispatch_device(stream.device(), [&](auto d) { feed_forward_backward_on<d()>(args, stream); });
}

}  // namespace serrate
