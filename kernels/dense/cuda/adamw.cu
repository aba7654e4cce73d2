// One launch for all dense weights: five values are read and three written for each, and perhaps
// its copy in bfloat16.
#include "kernels/cuda/fours.cuh"
#include "kernels/dense/adamw_factors.h"

namespace serrate {
namespace {

template <Access kAccess>
struct AdamWStep {
  float *parameters, *first_moment, *second_moment;
  const float *gradients, *decay;
  BFloat16* rounded;  // or null
  std::int64_t size;
  AdamWFactors factors;

  __device__ void operator()(std::int64_t, std::int64_t i) const {
    const AdamWFactors& f = factors;
    const Four g = load_four<kAccess>(gradients, i, size);
    const Four decays = load_four<kAccess>(decay, i, size);
    Four w = load_four<kAccess>(parameters, i, size);
    Four m = load_four<kAccess>(first_moment, i, size);
    Four v = load_four<kAccess>(second_moment, i, size);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      m.value[k] = fmaf(f.beta1, m.value[k], f.rest1 * g.value[k]);
      v.value[k] = fmaf(f.beta2, v.value[k], f.rest2 * (g.value[k] * g.value[k]));
      const float decayed = fmaf(-(f.shrink * decays.value[k]), w.value[k], w.value[k]);
      const float denominator = fmaf(sqrtf(v.value[k]), f.rescale, f.eps);
      w.value[k] = decayed - f.step_size * m.value[k] / denominator;
    }
    store_four<kAccess>(m, first_moment, i, size);
    store_four<kAccess>(v, second_moment, i, size);
    store_four<kAccess>(w, parameters, i, size);
    if (rounded) store_four<kAccess>(w, rounded, i, size);
  }
};

}  // namespace

template <>
void adamw_update_on<DeviceType::kCuda>(const AdamW& args, const Stream& stream) {
  const auto size = static_cast<std::int64_t>(args.parameters.size());
  with_access(
      [&](auto access) {
        const AdamWStep<access()> step{args.parameters.device_data(),
                                       args.first_moment.device_data(),
                                       args.second_moment.device_data(),
                                       args.gradients.device_data(),
                                       args.decay.device_data(),
                                       args.rounded.device_data(),
                                       size,
                                       adamw_factors(args.options, args.step)};
        launch_for_each_four(1, size, step, stream);
      },
      DeviceSpan<const float>(args.parameters), DeviceSpan<const float>(args.first_moment),
      DeviceSpan<const float>(args.second_moment), args.gradients, args.decay, args.rounded);
}

}  // namespace serrate
