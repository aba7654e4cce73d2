#include "serrate/kernels/adamw.h"

#include <algorithm>
#include <cmath>

#include "kernels/simd/targets.h"

#ifndef SERRATE_KERNELS_HOST_ADAMW
#define SERRATE_KERNELS_HOST_ADAMW
namespace serrate {

// AdamW as the CPU reads it.
struct HostAdamW {
  float *parameters, *first_moment, *second_moment;
  const float *gradients, *decay;
  AdamWOptions options;
  std::int64_t step;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/adamw.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// The bias corrections are folded into two factors: lr m^ = step_size m, sqrt(v^) = rescale
// sqrt(v).
void adamw_range(const HostAdamW& args, std::int64_t begin, std::int64_t end) {
  const AdamWOptions& o = args.options;
  const auto step = static_cast<double>(args.step);
  const auto set = [](double value)
                       HWY_ATTR { return hn::Set(kFloats, static_cast<float>(value)); };
  const FloatVector step_size = set(o.learning_rate / (1 - std::pow(o.beta1, step)));
  const FloatVector rescale = set(1 / std::sqrt(1 - std::pow(o.beta2, step)));
  const FloatVector beta1 = set(o.beta1), rest1 = set(1 - double{o.beta1});
  const FloatVector beta2 = set(o.beta2), rest2 = set(1 - double{o.beta2});
  const FloatVector eps = set(o.eps), shrink = set(double{o.learning_rate} * o.weight_decay);
  for_each_vector(end - begin, [&](auto lanes, std::int64_t offset) HWY_ATTR {
    const std::int64_t i = begin + offset;
    const FloatVector g = lanes.load(&args.gradients[i]);
    float* m_at = &args.first_moment[i];
    float* v_at = &args.second_moment[i];
    float* w_at = &args.parameters[i];
    const FloatVector m = hn::MulAdd(beta1, lanes.load(m_at), hn::Mul(rest1, g));
    const FloatVector v = hn::MulAdd(beta2, lanes.load(v_at), hn::Mul(rest2, hn::Mul(g, g)));
    lanes.store(m, m_at);
    lanes.store(v, v_at);
    const FloatVector w = lanes.load(w_at);
    const FloatVector decayed = hn::NegMulAdd(hn::Mul(shrink, lanes.load(&args.decay[i])), w, w);
    const FloatVector denominator = hn::MulAdd(hn::Sqrt(v), rescale, eps);
    lanes.store(hn::Sub(decayed, hn::Div(hn::Mul(step_size, m), denominator)), w_at);
  });
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(adamw_range);

template <>
void adamw_update_on<DeviceType::kCpu>(const AdamW& args, const Stream& stream) {
  constexpr std::int64_t kBlock = 16 * 1024;  // elements: enough to be worth a thread
  const std::int64_t size = std::ssize(args.parameters);
  const HostAdamW host{host_view(args.parameters, stream).data(),
                       host_view(args.first_moment, stream).data(),
                       host_view(args.second_moment, stream).data(),
                       host_view(args.gradients, stream).data(),
                       host_view(args.decay, stream).data(),
                       args.options,
                       args.step};
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t begin = 0; begin < size; begin += kBlock) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(host, begin, std::min(size, begin + kBlock));
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
