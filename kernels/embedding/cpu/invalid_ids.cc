#include "serrate/kernels/invalid_ids.h"

namespace serrate {

template <>
std::int64_t drop_invalid_ids_on<DeviceType::kCpu>(const JaggedView& feature, std::int64_t num_rows,
                                                   ValidIds& result, const Stream& stream) {
  const auto values = result.values.resize_discard(feature.num_values(), stream);
  const auto offsets = result.offsets.resize_discard(feature.num_bags() + 1, stream);
  const auto weights = result.weights.resize_discard(std::ssize(feature.weights), stream);
  std::int64_t kept = 0;
  offsets[0] = 0;
  for (std::int64_t bag = 0; bag < feature.num_bags(); ++bag) {
    const std::int64_t end = feature.offsets[bag + 1] - feature.offsets[0];
    for (std::int64_t i = feature.offsets[bag] - feature.offsets[0]; i < end; ++i) {
      if (feature.values[i] < 0 || feature.values[i] >= num_rows) continue;
      if (!weights.empty()) weights[kept] = feature.weights[i];
      values[kept++] = feature.values[i];
    }
    offsets[bag + 1] = kept;
  }
  result.values.resize_discard(kept, stream);
  if (!weights.empty()) result.weights.resize_discard(kept, stream);
  return feature.num_values() - kept;
}

template <>
std::int64_t replace_invalid_ids_on<DeviceType::kCpu>(std::span<const std::int64_t> values,
                                                      std::int64_t num_rows,
                                                      std::int64_t replacement,
                                                      std::span<std::int64_t> result,
                                                      const Stream&) {
  std::int64_t replaced = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const bool valid = values[i] >= 0 && values[i] < num_rows;
    result[i] = valid ? values[i] : replacement;
    replaced += !valid;
  }
  return replaced;
}

}  // namespace serrate
