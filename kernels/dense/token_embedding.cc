#include "serrate/kernels/token_embedding.h"

#include "kernels/dense/token_embedding_checks.h"
#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {

void check_token_embedding_forward(const TokenEmbeddingForward& args) {
  for (const auto& feature : args.features) {
    check(same_shape(feature, args.x), "token_embedding: features must have the shape of x");
  }
  check(args.position.cols == args.x.cols, "token_embedding: position must have the columns of x");
  check(std::ssize(args.positions) == args.x.rows,
        "token_embedding: positions must have an entry per row of x");
}

void token_embedding_forward(const TokenEmbeddingForward& args, const Stream& stream) {
  check_token_embedding_forward(args);
  dispatch_device(stream.device(), [&](auto d) { token_embedding_forward_on<d()>(args, stream); });
}

void token_embedding_backward(const TokenEmbeddingBackward& args, const Stream& stream) {
  for (const auto& d_feature : args.d_features) {
    check(same_shape(d_feature, args.d_x),
          "token_embedding: d_features must have the shape of d_x");
  }
  check(args.d_position.cols == args.d_x.cols,
        "token_embedding: d_position must have the columns of d_x");
  check(std::ssize(args.positions) == args.d_x.rows,
        "token_embedding: positions must have an entry per row of d_x");
  dispatch_device(stream.device(), [&](auto d) { token_embedding_backward_on<d()>(args, stream); });
}

}  // namespace serrate
