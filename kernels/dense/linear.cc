#include "serrate/kernels/linear.h"

#include "src/core/dispatch.h"

namespace serrate {

void linear_forward(const LinearForward& args, const Stream& stream) {
  check(args.x.cols == args.weight.cols, "linear: x and weight must have the same columns (in)");
  check(args.y.rows == args.x.rows && args.y.cols == args.weight.rows,
        "linear: y must be [rows of x, rows of weight]");
  check(args.bias.empty() || std::ssize(args.bias) == args.weight.rows,
        "linear: bias must have an entry per row of weight");
  dispatch_device(stream.device(), [&](auto d) { linear_forward_on<d()>(args, stream); });
}

void linear_backward(const LinearBackward& args, const Stream& stream) {
  check(args.x.cols == args.weight.cols, "linear: x and weight must have the same columns (in)");
  check(args.d_y.rows == args.x.rows && args.d_y.cols == args.weight.rows,
        "linear: d_y must be [rows of x, rows of weight]");
  check(!args.d_x.has_data() || (args.d_x.rows == args.x.rows && args.d_x.cols == args.x.cols),
        "linear: d_x must have the shape of x");
  check(args.d_weight.rows == args.weight.rows && args.d_weight.cols == args.weight.cols,
        "linear: d_weight must have the shape of weight");
  check(args.d_bias.empty() || std::ssize(args.d_bias) == args.weight.rows,
        "linear: d_bias must have an entry per row of weight");
  dispatch_device(stream.device(), [&](auto d) { linear_backward_on<d()>(args, stream); });
}

}  // namespace serrate
