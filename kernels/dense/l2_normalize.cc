#include "serrate/kernels/l2_normalize.h"

#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {

void l2_normalize_forward(DeviceMatrix<const float> x, DeviceMatrix<float> y,
                          DeviceSpan<float> norms, const Stream& stream) {
  check(same_shape(x, y), "l2_normalize: y must have the shape of x");
  check(std::ssize(norms) == x.rows, "l2_normalize: norms must have an entry per row");
  dispatch_device(stream.device(),
                  [&](auto d) { l2_normalize_forward_on<d()>(x, y, norms, stream); });
}

void l2_normalize_backward(DeviceMatrix<const float> y, DeviceSpan<const float> norms,
                           DeviceMatrix<const float> d_y, DeviceMatrix<float> d_x,
                           const Stream& stream) {
  check(same_shape(y, d_y) && same_shape(y, d_x),
        "l2_normalize: d_y and d_x must have the shape of y");
  check(std::ssize(norms) == y.rows, "l2_normalize: norms must have an entry per row");
  dispatch_device(stream.device(),
                  [&](auto d) { l2_normalize_backward_on<d()>(y, norms, d_y, d_x, stream); });
}

}  // namespace serrate
