#include "serrate/kernels/dropout.h"

#include "kernels/dense/dropout_draw.h"
#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_key(const DropoutKey& key, std::int64_t rows) {
  check(key.rate >= 0 && key.rate < 1, "dropout: rate must be in [0, 1)");
  check(key.rate == 0 || std::ssize(key.token_ids) == rows,
        "dropout: token_ids must have an entry per row");
}

}  // namespace

void check_dropout_forward(const DropoutKey& key, const InputMatrix& x,
                           DeviceMatrix<const float> residual, DeviceMatrix<float> y,
                           Device device) {
  check_key(key, x.rows);
  check(same_shape(x, y), "dropout: y must have the shape of x");
  check(!residual.has_data() || same_shape(x, residual),
        "dropout: residual must have the shape of x");
  check_type(x, "dropout: x", device);
}

void check_dropout_backward(const DropoutKey& key, DeviceMatrix<const float> d_y,
                            const OutputMatrix& d_x, Device device) {
  check_key(key, d_y.rows);
  check(same_shape(d_y, d_x), "dropout: d_x must have the shape of d_y");
  check_type(d_x, "dropout: d_x", device);
}

void dropout_forward(const DropoutKey& key, const InputMatrix& x,
                     DeviceMatrix<const float> residual, DeviceMatrix<float> y,
                     const Stream& stream) {
  check_dropout_forward(key, x, residual, y, stream.device());
  dispatch_device(stream.device(),
                  [&](auto d) { dropout_forward_on<d()>(key, x, residual, y, stream); });
}

void dropout_backward(const DropoutKey& key, DeviceMatrix<const float> d_y, const OutputMatrix& d_x,
                      const Stream& stream) {
  check_dropout_backward(key, d_y, d_x, stream.device());
  dispatch_device(stream.device(),
                  [&](auto d) { dropout_backward_on<d()>(key, d_y, d_x, stream); });
}

}  // namespace serrate
