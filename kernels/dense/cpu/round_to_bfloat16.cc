#include "serrate/kernels/round_to_bfloat16.h"

#include <algorithm>

namespace serrate {

template <>
void round_to_bfloat16_on<DeviceType::kCpu>(DeviceSpan<const float> values,
                                            DeviceSpan<BFloat16> rounded, const Stream& stream) {
  std::ranges::transform(host_view(values, stream), host_view(rounded, stream).begin(),
                         [](float value) { return BFloat16(value); });
}

}  // namespace serrate
