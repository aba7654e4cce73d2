#include <algorithm>

#include "src/core/ordered_sum.h"

namespace serrate {

template <DeviceType D, typename T>
void add_in_order_on(std::span<const Addition<T>> additions, std::int64_t size,
                     const Stream& stream) {
  static_assert(D == DeviceType::kCpu);
  constexpr std::int64_t kBlock = 4096;  // stays in the cache for all of its additions
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static) if (size > kBlock)
  for (std::int64_t begin = 0; begin < size; begin += kBlock) {
    const std::int64_t end = std::min(size, begin + kBlock);
    for (const auto [into, term] : additions) {
      for (std::int64_t i = begin; i < end; ++i) into[i] += term[i];
    }
  }
}

template void add_in_order_on<DeviceType::kCpu>(std::span<const Addition<float>>, std::int64_t,
                                                const Stream&);
template void add_in_order_on<DeviceType::kCpu>(std::span<const Addition<double>>, std::int64_t,
                                                const Stream&);
template void add_in_order_on<DeviceType::kCpu>(std::span<const Addition<std::int64_t>>,
                                                std::int64_t, const Stream&);

}  // namespace serrate
