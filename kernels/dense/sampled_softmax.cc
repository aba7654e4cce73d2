#include "serrate/kernels/sampled_softmax.h"

#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {

void sampled_softmax(const SampledSoftmax& args, DeviceSpan<double> loss, const Stream& stream) {
  check(loss.size() == 1, "sampled_softmax: loss must have one entry");
  check(same_shape(args.hidden, args.targets),
        "sampled_softmax: targets must have the shape of hidden");
  check(args.negatives.cols == args.hidden.cols,
        "sampled_softmax: negatives must have the columns of hidden");
  check(std::ssize(args.target_ids) == args.hidden.rows,
        "sampled_softmax: target_ids must have an entry per row of hidden");
  check(std::ssize(args.negative_ids) == args.negatives.rows,
        "sampled_softmax: negative_ids must have an entry per row of negatives");
  check(args.inverse_temperature > 0, "sampled_softmax: inverse_temperature must be positive");
  check(!args.d_hidden.has_data() || same_shape(args.hidden, args.d_hidden),
        "sampled_softmax: d_hidden must have the shape of hidden");
  check(!args.d_targets.has_data() || same_shape(args.hidden, args.d_targets),
        "sampled_softmax: d_targets must have the shape of hidden");
  check(!args.d_negatives.has_data() || same_shape(args.negatives, args.d_negatives),
        "sampled_softmax: d_negatives must have the shape of negatives");
  check(args.precision == Precision::kFp32 || stream.device().type != DeviceType::kCpu,
        "sampled_softmax: the CPU computes in fp32 alone");
  dispatch_device(stream.device(), [&](auto d) { sampled_softmax_on<d()>(args, loss, stream); });
}

}  // namespace serrate
