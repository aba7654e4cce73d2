#include "serrate/kernels/activation.h"

#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {

Activation activation_from_string(const std::string& name) {
  for (const auto f :
       {Activation::kGelu, Activation::kGeluTanh, Activation::kRelu, Activation::kSilu}) {
    if (name == to_string(f)) return f;
  }
  throw usage_error("no activation \"" + name + "\" (there are gelu, gelu_tanh, relu, silu)");
}

std::string to_string(Activation activation) {
  switch (activation) {
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_tanh";
    case Activation::kRelu:
      return "relu";
    case Activation::kSilu:
      return "silu";
  }
  throw Error("activation out of range");
}

void activation_forward(Activation f, const InputMatrix& x, const OutputMatrix& y,
                        const Stream& stream) {
  check(same_shape(x, y) && x.type == y.type, "activation: y must have the shape and type of x");
  check_type(x, "activation: x", stream.device());
  dispatch_device(stream.device(), [&](auto d) { activation_forward_on<d()>(f, x, y, stream); });
}

void activation_backward(Activation f, const InputMatrix& x, const InputMatrix& d_y,
                         const OutputMatrix& d_x, const Stream& stream) {
  check(same_shape(x, d_y) && same_shape(x, d_x) && x.type == d_y.type && x.type == d_x.type,
        "activation: d_y and d_x must have the shape and type of x");
  check_type(x, "activation: x", stream.device());
  dispatch_device(stream.device(),
                  [&](auto d) { activation_backward_on<d()>(f, x, d_y, d_x, stream); });
}

}  // namespace serrate
