#include "serrate/kernels/layer_norm.h"

#include "kernels/dense/dropout_draw.h"
#include "kernels/dense/token_embedding_checks.h"
#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {

void layer_norm_forward(const LayerNormForward& args, const Stream& stream) {
  const auto& x = args.x;
  const auto is_x = [&](const auto& matrix) {
    return same_shape(matrix, x) && matrix.device_data() == x.device_data() &&
           matrix.stride == x.stride;
  };
  check(same_shape(x, args.y), "layer_norm: y must have the shape of x");
  check(std::ssize(args.gamma) == x.cols && std::ssize(args.beta) == x.cols,
        "layer_norm: gamma and beta must have an entry per column of x");
  check(std::ssize(args.mean) == x.rows && std::ssize(args.rstd) == x.rows,
        "layer_norm: mean and rstd must have an entry per row of x");
  check_type(args.y, "layer_norm: y", stream.device());
  if (const LayerNormSum& s = args.sum; s.branch.has_data()) {
    check(is_x(s.sum), "layer_norm: the sum must be x");
    check_dropout_forward(s.key, s.branch, s.residual, s.sum, stream.device());
  }
  if (args.sum.tokens) {
    check_token_embedding_forward(*args.sum.tokens);
    check(is_x(args.sum.tokens->x) && is_x(args.sum.branch.as<float>()),
          "layer_norm: the branch and its tokens must be x");
  }
  dispatch_device(stream.device(), [&](auto d) { layer_norm_forward_on<d()>(args, stream); });
}

void layer_norm_backward(const LayerNormBackward& args, const Stream& stream) {
  const auto& x = args.x;
  check(same_shape(x, args.d_y) && same_shape(x, args.d_x),
        "layer_norm: d_y and d_x must have the shape of x");
  check(std::ssize(args.gamma) == x.cols && std::ssize(args.d_gamma) == x.cols &&
            std::ssize(args.d_beta) == x.cols,
        "layer_norm: gamma, d_gamma and d_beta must have an entry per column of x");
  check(std::ssize(args.mean) == x.rows && std::ssize(args.rstd) == x.rows,
        "layer_norm: mean and rstd must have an entry per row of x");
  check_type(args.d_y, "layer_norm: d_y", stream.device());
  if (args.d_branch.has_data()) {
    check_dropout_backward(args.key, args.d_x, args.d_branch, stream.device());
  }
  check(args.d_bias.empty() || (args.d_branch.cols == x.cols && std::ssize(args.d_bias) == x.cols),
        "layer_norm: d_bias must have an entry per column of d_branch");
  dispatch_device(stream.device(), [&](auto d) { layer_norm_backward_on<d()>(args, stream); });
}

}  // namespace serrate
