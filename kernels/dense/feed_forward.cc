#include "serrate/kernels/feed_forward.h"

#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

// What the linear layers do not see; they check the rest.
void check_feed_forward(const FeedForward& args, const Stream& stream) {
  check(args.activated.rows == args.x.rows && args.activated.cols == args.up.rows,
        "feed_forward: activated must be [rows of x, rows of up]");
  check_type(args.activated, "feed_forward: activated", stream.device());
  const std::int64_t needed =
      feed_forward_kept_bytes(args.activation, args.activated.rows, args.activated.cols,
                              args.activated.type, stream.device());
  check(static_cast<std::int64_t>(args.kept.size()) >= needed,
        "feed_forward: kept must have the bytes of feed_forward_kept_bytes()");
}

}  // namespace

std::int64_t feed_forward_kept_bytes(Activation f, std::int64_t n, std::int64_t wide, DataType type,
                                     Device device) {
  return dispatch_device(device,
                         [&](auto d) { return feed_forward_kept_bytes_on<d()>(f, n, wide, type); });
}

void feed_forward(const FeedForward& args, const Stream& stream) {
  check_feed_forward(args, stream);
  dispatch_device(stream.device(), [&](auto d) { feed_forward_on<d()>(args, stream); });
}

void feed_forward_backward(const FeedForwardBackward& args, const Stream& stream) {
  check_feed_forward(args.forward, stream);
  check(same_shape(args.d_activated, args.forward.activated) &&
            args.d_activated.type == args.forward.activated.type,
        "feed_forward: d_activated must have the shape and type of activated");
  dispatch_device(stream.device(), [&](auto d) { feed_forward_backward_on<d()>(args, stream); });
}

}  // namespace serrate
