// relu and gelu_tanh are epilogues of the products. Of others a kernel makes the activation, and
// another one its gradient with that of the bias before it.
//
// cuBLASLt's epilogues with gradients of biases (BGRAD) are of no use here: they overwrite what
// should be added to, and round it to the type of the result.
#include "serrate/kernels/feed_forward.h"

#include "kernels/cuda/matrix_product.h"
#include "kernels/dense/cuda/activation.h"
#include "kernels/dense/feed_forward_layers.h"

namespace serrate {
namespace {

bool is_epilogue(const FeedForward& args) {
  return products_apply(args.activation, args.activated.cols);
}

std::optional<ProductActivation> epilogue(const FeedForward& args, ProductActivation::Pass pass) {
  if (!is_epilogue(args)) return std::nullopt;
  return ProductActivation{args.activation, pass, args.kept};
}

}  // namespace

template <>
std::int64_t feed_forward_kept_bytes_on<DeviceType::kCuda>(Activation f, std::int64_t n,
                                                           std::int64_t wide, DataType type) {
  return products_apply(f, wide) ? product_kept_bytes(f, n, wide, type) : n * wide * size_of(type);
}

template <>
void feed_forward_on<DeviceType::kCuda>(const FeedForward& args, const Stream& stream) {
  multiply({.a = args.x,
            .b = args.up,
            .b_is = Operand::kTransposed,
            .bias = args.up_bias,
            .result = is_epilogue(args) ? args.activated : kept_arguments(args),
            .precision = args.precision,
            .activation = epilogue(args, ProductActivation::Pass::kForward)},
           stream);
  if (!is_epilogue(args)) {
    activation_forward(args.activation, kept_arguments(args), args.activated, stream);
  }
  linear_forward(down_layer(args), stream);
}

template <>
void feed_forward_backward_on<DeviceType::kCuda>(const FeedForwardBackward& args,
                                                 const Stream& stream) {
  const FeedForward& forward = args.forward;
  multiply({.a = args.d_y,
            .b = forward.down,
            .result = args.d_activated,
            .precision = forward.precision,
            .activation = epilogue(forward, ProductActivation::Pass::kBackward)},
           stream);
  LinearBackward down = down_gradients(args), up = up_gradients(args);
  down.d_x = {};  // that product is above
  linear_backward(down, stream);
  if (!is_epilogue(forward)) {
    activation_backward_and_sum(forward.activation, kept_arguments(forward), args.d_activated,
                                args.d_activated, args.d_up_bias, stream);
    up.d_bias = {};
  }
  linear_backward(up, stream);
}

}  // namespace serrate
