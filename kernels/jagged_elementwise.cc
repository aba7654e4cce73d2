#include "serrate/kernels/jagged_elementwise.h"

#include "kernels/cpu_only.h"
#include "kernels/matrix_batch_checks.h"

namespace serrate {

void jagged_elementwise_forward(const JaggedElementwise& args, const Stream& stream) {
  check_batch(args.x, args.z.batch_size, "x of jagged_elementwise");
  check_batch(args.y, args.z.batch_size, "y of jagged_elementwise");
  check_batch(args.z, args.z.batch_size, "z of jagged_elementwise");
  check(args.y.row_offsets.empty(), "jagged_elementwise: y must be dense or shared");
  check(!args.z.is_shared(), "jagged_elementwise: z needs a matrix for every sample");
  dispatch_cpu_only(stream.device(), "jagged_elementwise_forward",
                    [&](auto d) { jagged_elementwise_forward_on<d()>(args, stream); });
}

void jagged_elementwise_backward(const JaggedElementwiseBackward& args, const Stream& stream) {
  if (args.d_y.data) {
    check_batch(args.x, args.d_y.batch_size, "x of jagged_elementwise");
    check_batch(args.d_z, args.d_y.batch_size, "d_z of jagged_elementwise");
    check_batch(args.d_y, args.d_y.batch_size, "d_y of jagged_elementwise");
    check(args.d_y.row_offsets.empty(), "jagged_elementwise: d_y must be dense or shared, as y is");
    dispatch_cpu_only(stream.device(), "jagged_elementwise_backward",
                      [&](auto d) { jagged_elementwise_dense_gradient_on<d()>(args, stream); });
  }
  if (!args.d_x.data) return;
  // After d_y, which reads d_z: d_x may be d_z. The gradient of a sum is d_z plus nothing.
  const auto nothing = MatrixBatch<const float>::dense({nullptr, 0, 0}, args.d_z.batch_size);
  const bool is_product = args.op == Elementwise::kMultiply;
  jagged_elementwise_forward({args.op, args.d_z, is_product ? args.y : nothing, args.d_x}, stream);
}

}  // namespace serrate
