#include "serrate/kernels/add_to.h"

namespace serrate {

template <>
void add_to_on<DeviceType::kCpu>(std::span<const float> values, std::span<float> sum,
                                 const Stream& stream) {
#pragma omp parallel for simd num_threads(stream.num_threads()) schedule(static)
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
}

}  // namespace serrate
