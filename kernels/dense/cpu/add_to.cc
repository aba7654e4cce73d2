#include "serrate/kernels/add_to.h"

namespace serrate {

template <>
void add_to_on<DeviceType::kCpu>(DeviceSpan<const float> terms, DeviceSpan<float> sums,
                                 const Stream& stream) {
  const std::span<const float> values = host_view(terms, stream);
  const std::span<float> sum = host_view(sums, stream);
#pragma omp parallel for simd num_threads(stream.num_threads()) schedule(static)
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
}

}  // namespace serrate
