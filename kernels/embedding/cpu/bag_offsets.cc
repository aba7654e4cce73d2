#include <algorithm>

#include "serrate/kernels/bag_offsets.h"

namespace serrate {

template <>
void mean_scales_on<DeviceType::kCpu>(std::span<const MeanScales> segments, const Stream& stream) {
  for (const MeanScales& segment : segments) {
    const auto offsets = host_view(segment.offsets, stream);
    const auto ids = host_view(segment.ids, stream);
    const auto scales = host_view(segment.scales, stream);
    const auto has_row = [&](std::int64_t id) { return id >= 0 && id < segment.num_rows; };
    for (std::size_t bag = 0; bag < scales.size(); ++bag) {
      std::int64_t count = offsets[bag + 1] - offsets[bag];
      if (!ids.empty()) {
        count = std::ranges::count_if(ids.subspan(offsets[bag] - offsets[0], count), has_row);
      }
      scales[bag] = count > 0 ? 1.0f / static_cast<float>(count) : 0.0f;
    }
  }
}

template <>
void bags_of_ids_on<DeviceType::kCpu>(std::span<const BagsOfIds> segments, const Stream& stream) {
  for (const BagsOfIds& segment : segments) {
    const auto offsets = host_view(segment.offsets, stream);
    const auto bags = host_view(segment.bags, stream);
    for (std::size_t bag = 0; bag + 1 < offsets.size(); ++bag) {
      std::ranges::fill(bags.subspan(offsets[bag] - offsets[0], offsets[bag + 1] - offsets[bag]),
                        static_cast<std::int64_t>(bag));
    }
  }
}

}  // namespace serrate
