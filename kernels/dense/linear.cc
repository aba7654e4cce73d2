#include "serrate/kernels/linear.h"

#include <initializer_list>

#include "kernels/dense/linear_checks.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_precision(Precision precision, std::initializer_list<InputMatrix> matrices,
                     Device device) {
  check(precision == Precision::kFp32 || device.type != DeviceType::kCpu,
        "linear: on the CPU the precision is fp32");
  const DataType type = precision == Precision::kBf16 ? DataType::kBFloat16 : DataType::kFloat32;
  for (const InputMatrix& matrix : matrices) {
    check(!matrix.has_data() || matrix.type == type,
          "linear: matrices are stored in bfloat16 for the precision bf16, else in float32");
  }
}

}  // namespace

Precision precision_from_string(const std::string& name) {
  for (const auto p : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
    if (name == to_string(p)) return p;
  }
  throw usage_error("no precision \"" + name + "\" (there are fp32, tf32, bf16)");
}

std::string to_string(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kTf32:
      return "tf32";
    case Precision::kBf16:
      return "bf16";
  }
  throw Error("precision out of range");
}

void check_linear_forward(const LinearForward& args, Device device) {
  check(args.x.cols == args.weight.cols, "linear: x and weight must have the same columns (in)");
  check(args.y.rows == args.x.rows && args.y.cols == args.weight.rows,
        "linear: y must be [rows of x, rows of weight]");
  check(args.bias.cols == 0 || (args.bias.rows == 1 && args.bias.cols == args.weight.rows),
        "linear: bias must have an entry per row of weight");
  check_precision(args.precision, {args.x, args.weight, args.bias, args.y}, device);
}

void linear_forward(const LinearForward& args, const Stream& stream) {
  check_linear_forward(args, stream.device());
  dispatch_device(stream.device(), [&](auto d) { linear_forward_on<d()>(args, stream); });
}

void check_linear_backward(const LinearBackward& args, Device device) {
  check(args.x.cols == args.weight.cols, "linear: x and weight must have the same columns (in)");
  check(args.d_y.rows == args.x.rows && args.d_y.cols == args.weight.rows,
        "linear: d_y must be [rows of x, rows of weight]");
  check(!args.d_x.has_data() || (args.d_x.rows == args.x.rows && args.d_x.cols == args.x.cols),
        "linear: d_x must have the shape of x");
  check(args.d_weight.rows == args.weight.rows && args.d_weight.cols == args.weight.cols,
        "linear: d_weight must have the shape of weight");
  check(args.d_bias.empty() || std::ssize(args.d_bias) == args.weight.rows,
        "linear: d_bias must have an entry per row of weight");
  check_precision(args.precision, {args.x, args.weight, args.d_y, args.d_x}, device);
}

void linear_backward(const LinearBackward& args, const Stream& stream) {
  check_linear_backward(args, stream.device());
  dispatch_device(stream.device(), [&](auto d) { linear_backward_on<d()>(args, stream); });
}

}  // namespace serrate
