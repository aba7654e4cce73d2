#include <vector>

#include "serrate/kernels/permute_bags.h"

namespace serrate {
namespace {

// BagRows as the CPU reads it.
struct HostBagRows {
  std::span<const std::int64_t> bag_index;
  MatrixView<float> rows, bags;
  std::span<const float> bag_scale;

  float scale(std::int64_t bag) const { return bag_scale.empty() ? 1.0f : bag_scale[bag]; }
};

std::vector<HostBagRows> host_views(std::span<const BagRows> segments, const Stream& stream) {
  std::vector<HostBagRows> host;
  for (const BagRows& s : segments) {
    host.push_back({host_view(s.bag_index, stream), host_view(s.rows, stream),
                    host_view(s.bags, stream), host_view(s.bag_scale, stream)});
  }
  return host;
}

}  // namespace

// Rows in parallel within a segment, where each bag occurs once; the barrier at the end of the
// loop keeps the segments in order.
template <>
void scatter_bags_on<DeviceType::kCpu>(std::span<const BagRows> segments, const Stream& stream) {
  const std::vector<HostBagRows> host = host_views(segments, stream);
#pragma omp parallel num_threads(stream.num_threads())
  for (const HostBagRows& s : host) {
#pragma omp for schedule(static)
    for (std::int64_t i = 0; i < s.rows.rows; ++i) {
      const std::int64_t bag = s.bag_index[i];
      const float scale = s.scale(bag);
      const float* row = s.rows.row(i);
      float* out = s.bags.row(bag);
#pragma omp simd
      for (std::int64_t c = 0; c < s.rows.cols; ++c) out[c] += scale * row[c];
    }
  }
}

template <>
void gather_bags_on<DeviceType::kCpu>(std::span<const BagRows> segments, const Stream& stream) {
  const std::vector<HostBagRows> host = host_views(segments, stream);
#pragma omp parallel num_threads(stream.num_threads())
  for (const HostBagRows& s : host) {
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < s.rows.rows; ++i) {
      const std::int64_t bag = s.bag_index[i];
      const float scale = s.scale(bag);
      const float* in = s.bags.row(bag);
      float* row = s.rows.row(i);
#pragma omp simd
      for (std::int64_t c = 0; c < s.rows.cols; ++c) row[c] = scale * in[c];
    }
  }
}

}  // namespace serrate
