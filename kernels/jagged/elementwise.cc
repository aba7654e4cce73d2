#include "serrate/kernels/jagged_elementwise.h"

#include "kernels/matrix_batch_checks.h"
#include "src/core/dispatch.h"

namespace serrate {

void jagged_elementwise_forward(const JaggedElementwise& args, const Stream& stream) {
  check_batch(args.x, args.z.batch_size, "x of jagged_elementwise");
  check_batch(args.y, args.z.batch_size, "y of jagged_elementwise");
  check_batch(args.z, args.z.batch_size, "z of jagged_elementwise");
  check(args.y.row_offsets.empty(), "jagged_elementwise: y must be dense or shared");
  check(!args.z.is_shared(), "jagged_elementwise: z needs a matrix for every sample");
  dispatch_device(stream.device(),
                  [&](auto d) { jagged_elementwise_forward_on<d()>(args, stream); });
}

void jagged_elementwise_backward(const JaggedElementwiseBackward& args, const Stream& stream) {
  const bool is_product = args.op == Elementwise::kMultiply;
  if (!args.d_y.has_data() || args.d_y.rows == 0) {
    if (!args.d_x.has_data()) return;
    // The gradient of a sum is d_z plus nothing.
    const auto nothing = MatrixBatch<const float>::dense({nullptr, 0, 0}, args.d_z.batch_size);
    return jagged_elementwise_forward({args.op, args.d_z, is_product ? args.y : nothing, args.d_x},
                                      stream);
  }
  const std::int64_t batch_size = args.d_y.batch_size;
  check_batch(args.d_z, batch_size, "d_z of jagged_elementwise");
  check_batch(args.d_y, batch_size, "d_y of jagged_elementwise");
  check(args.d_y.row_offsets.empty(), "jagged_elementwise: d_y must be dense or shared, as y is");
  if (is_product) {
    check_batch(args.x, batch_size, "x of jagged_elementwise");
    check_batch(args.y, batch_size, "y of jagged_elementwise");
    check(args.y.rows == args.d_y.rows && args.y.cols == args.d_y.cols &&
              args.y.is_shared() == args.d_y.is_shared(),
          "jagged_elementwise: d_y must have the shape of y");
  }
  if (args.d_x.has_data()) {
    check_batch(args.d_x, batch_size, "d_x of jagged_elementwise");
    check(!args.d_x.is_shared(), "jagged_elementwise: d_x needs a matrix for every sample");
  }
  dispatch_device(stream.device(),
                  [&](auto d) { jagged_elementwise_backward_on<d()>(args, stream); });
}

}  // namespace serrate
