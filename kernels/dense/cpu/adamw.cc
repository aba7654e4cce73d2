#include "serrate/kernels/adamw.h"

#include <algorithm>

#include "kernels/dense/adamw_factors.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/round_to_bfloat16.h"

#ifndef SERRATE_KERNELS_HOST_ADAMW
#define SERRATE_KERNELS_HOST_ADAMW
namespace serrate {

// AdamW as the CPU reads it.
struct HostAdamW {
  float *parameters, *first_moment, *second_moment;
  const float *gradients, *decay;
  AdamWFactors factors;
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

void adamw_range(const HostAdamW& args, std::int64_t begin, std::int64_t end) {
  const AdamWFactors& f = args.factors;
  const auto set = [](float value) HWY_ATTR { return hn::Set(kFloats, value); };
  const FloatVector step_size = set(f.step_size), rescale = set(f.rescale);
  const FloatVector beta1 = set(f.beta1), rest1 = set(f.rest1);
  const FloatVector beta2 = set(f.beta2), rest2 = set(f.rest2);
  const FloatVector eps = set(f.eps), shrink = set(f.shrink);
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
  const HostAdamW host{
      host_view(args.parameters, stream).data(),    host_view(args.first_moment, stream).data(),
      host_view(args.second_moment, stream).data(), host_view(args.gradients, stream).data(),
      host_view(args.decay, stream).data(),         adamw_factors(args.options, args.step)};
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t begin = 0; begin < size; begin += kBlock) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(host, begin, std::min(size, begin + kBlock));
  }
  if (!args.rounded.empty()) round_to_bfloat16(args.parameters, args.rounded, stream);
}

}  // namespace serrate
#endif  // HWY_ONCE
