#include "serrate/kernels/jagged_bmm.h"

#include "kernels/matrix_batch_checks.h"
#include "src/core/dispatch.h"

namespace serrate {

void jagged_bmm_forward(const JaggedBmm& args, const Stream& stream) {
  check_batch(args.x, args.z.batch_size, "x of jagged_bmm");
  check_batch(args.y, args.z.batch_size, "y of jagged_bmm");
  check_batch(args.z, args.z.batch_size, "z of jagged_bmm");
  check(!args.z.is_shared(), "jagged_bmm: z needs a matrix for every sample");
  dispatch_device(stream.device(), [&](auto d) { jagged_bmm_forward_on<d()>(args, stream); });
}

void jagged_bmm_backward(const JaggedBmmBackward& args, const Stream& stream) {
  const auto product = [&](const MatrixBatch<const float>& a, const MatrixBatch<const float>& b,
                           const MatrixBatch<float>& gradient, Transposed transposed) {
    if (gradient.has_data()) jagged_bmm_forward({a, b, gradient, transposed}, stream);
  };
  switch (args.transposed) {
    case Transposed::kNone:
      product(args.d_z, args.y, args.d_x, Transposed::kRight);
      product(args.x, args.d_z, args.d_y, Transposed::kLeft);
      break;
    case Transposed::kLeft:
      product(args.y, args.d_z, args.d_x, Transposed::kRight);
      product(args.x, args.d_z, args.d_y, Transposed::kNone);
      break;
    case Transposed::kRight:
      product(args.d_z, args.y, args.d_x, Transposed::kNone);
      product(args.d_z, args.x, args.d_y, Transposed::kLeft);
      break;
  }
}

}  // namespace serrate
