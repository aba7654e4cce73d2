#include "serrate/kernels/permute_bags.h"

namespace serrate {
namespace {

float scale_of(const BagRows& s, std::int64_t bag) {
  return s.bag_scale.empty() ? 1.0f : s.bag_scale[bag];
}

}  // namespace

// Rows in parallel within a segment, where each bag occurs once; the barrier at the end of the
// loop keeps the segments in order.
template <>
void scatter_bags_on<DeviceType::kCpu>(std::span<const BagRows> segments, const Stream& stream) {
#pragma omp parallel num_threads(stream.num_threads())
  for (const BagRows& s : segments) {
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < s.rows.rows; ++i) {
      const std::int64_t bag = s.bag_index[i];
      const float scale = scale_of(s, bag);
      const float* row = s.rows.row(i);
      float* out = s.bags.row(bag);
#pragma omp simd
      for (std::int64_t c = 0; c < s.rows.cols; ++c) out[c] += scale * row[c];
    }
  }
}

template <>
void gather_bags_on<DeviceType::kCpu>(std::span<const BagRows> segments, const Stream& stream) {
#pragma omp parallel num_threads(stream.num_threads())
  for (const BagRows& s : segments) {
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < s.rows.rows; ++i) {
      const std::int64_t bag = s.bag_index[i];
      const float scale = scale_of(s, bag);
      const float* in = s.bags.row(bag);
      float* row = s.rows.row(i);
#pragma omp simd
      for (std::int64_t c = 0; c < s.rows.cols; ++c) row[c] = scale * in[c];
    }
  }
}

}  // namespace serrate
