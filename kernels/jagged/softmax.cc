#include "serrate/kernels/jagged_softmax.h"

#include "kernels/matrix_batch_checks.h"
#include "src/core/dispatch.h"

namespace serrate {

void jagged_softmax_forward(const JaggedSoftmax& args, const Stream& stream) {
  check_batch(args.x, args.z.batch_size, "x of jagged_softmax");
  check_batch(args.z, args.z.batch_size, "z of jagged_softmax");
  check(!args.z.is_shared(), "jagged_softmax: z needs a matrix for every sample");
  dispatch_device(stream.device(), [&](auto d) { jagged_softmax_forward_on<d()>(args, stream); });
}

void jagged_softmax_backward(const JaggedSoftmaxBackward& args, const Stream& stream) {
  check_batch(args.z, args.d_x.batch_size, "z of jagged_softmax");
  check_batch(args.d_z, args.d_x.batch_size, "d_z of jagged_softmax");
  check_batch(args.d_x, args.d_x.batch_size, "d_x of jagged_softmax");
  check(!args.d_x.is_shared(), "jagged_softmax: d_x needs a matrix for every sample");
  dispatch_device(stream.device(), [&](auto d) { jagged_softmax_backward_on<d()>(args, stream); });
}

}  // namespace serrate
