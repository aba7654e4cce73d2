#include <algorithm>
#include <numeric>

#include "serrate/kernels/bag_offsets.h"

namespace serrate {

template <>
void offsets_from_lengths_on<DeviceType::kCpu>(std::span<const std::int64_t> lengths,
                                               std::span<std::int64_t> offsets, const Stream&) {
  offsets[0] = 0;
  std::partial_sum(lengths.begin(), lengths.end(), offsets.begin() + 1);
}

template <>
void mean_scales_on<DeviceType::kCpu>(std::span<const std::int64_t> offsets,
                                      std::span<float> scales, const Stream&) {
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const std::int64_t length = offsets[i + 1] - offsets[i];
    scales[i] = length > 0 ? 1.0f / static_cast<float>(length) : 0.0f;
  }
}

template <>
void bags_of_ids_on<DeviceType::kCpu>(std::span<const std::int64_t> offsets,
                                      std::span<std::int64_t> bags, const Stream&) {
  for (std::size_t bag = 0; bag + 1 < offsets.size(); ++bag) {
    const std::int64_t begin = offsets[bag] - offsets[0], end = offsets[bag + 1] - offsets[0];
    std::fill(bags.begin() + begin, bags.begin() + end, static_cast<std::int64_t>(bag));
  }
}

}  // namespace serrate
