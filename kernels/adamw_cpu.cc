#include <cmath>

#include "serrate/kernels/adamw.h"

namespace serrate {

template <>
void adamw_update_on<DeviceType::kCpu>(const AdamW& args, const Stream& stream) {
  const AdamWOptions& o = args.options;
  const auto step = static_cast<double>(args.step);
  const auto step_size = static_cast<float>(o.learning_rate / (1 - std::pow(o.beta1, step)));
  const auto rescale = static_cast<float>(1 / std::sqrt(1 - std::pow(o.beta2, step)));
#pragma omp parallel for simd num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t i = 0; i < std::ssize(args.parameters); ++i) {
    const float g = args.gradients[i];
    float& m = args.first_moment[i];
    float& v = args.second_moment[i];
    m = o.beta1 * m + (1 - o.beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    float& w = args.parameters[i];
    w -= o.learning_rate * o.weight_decay * args.decay[i] * w;
    w -= step_size * m / (std::sqrt(v) * rescale + o.eps);
  }
}

}  // namespace serrate
