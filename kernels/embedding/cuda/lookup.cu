// Lookup is bound by reading rows at random: a bag is a warp's (part of a warp's when rows are
// short), whose lanes read a row of the table together, 16 bytes each, several rows in flight.
#include <algorithm>
#include <vector>

#include "kernels/embedding/cuda/row_vector.cuh"
#include "serrate/buffer.h"
#include "serrate/kernels/embedding_lookup.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kBlockSize = 256;

// LookupSegment as a kernel sees it.
struct Segment {
  const float* table;
  std::int64_t table_stride;
  const std::int64_t* indices;
  const std::int64_t* offsets;
  const float* weights;  // or null
  float* output;
  std::int64_t output_stride;
  std::int64_t num_bags;
  std::int64_t cols;
};

// The grid's rows are segments, its columns are blocks of bags, and each row of a block's threads
// has one bag. They stride over the columns, and each adds up its own in the order of the indices.
template <int kWidth>
__global__ void pool_bags(const Segment* segments) {
  const Segment s = segments[blockIdx.y];
  const std::int64_t bag = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (bag >= s.num_bags) return;
  const std::int64_t begin = s.offsets[bag] - s.offsets[0], end = s.offsets[bag + 1] - s.offsets[0];
  for (std::int64_t c = threadIdx.x * kWidth; c < s.cols; c += blockDim.x * kWidth) {
    RowVector<kWidth> sum{};
#pragma unroll 4
    for (std::int64_t i = begin; i < end; ++i) {
      const float weight = s.weights ? s.weights[i] : 1.0f;
      multiply_add(weight, load<kWidth>(s.table + s.indices[i] * s.table_stride + c), sum);
    }
    store(sum, s.output + bag * s.output_stride + c);
  }
}

}  // namespace

template <>
void embedding_lookup_on<DeviceType::kCuda>(std::span<const LookupSegment> segments,
                                            const Stream& stream) {
  constexpr std::int64_t kMaxGridRows = 65535;
  for (; std::ssize(segments) > kMaxGridRows; segments = segments.subspan(kMaxGridRows)) {
    embedding_lookup_on<DeviceType::kCuda>(segments.first(kMaxGridRows), stream);
  }
  std::vector<Segment> host;
  std::int64_t most_bags = 0, most_cols = 0;
  bool aligned = true;
  for (const LookupSegment& s : segments) {
    host.push_back({s.table.device_data(), s.table.stride, s.indices.device_data(),
                    s.offsets.device_data(), s.weights.empty() ? nullptr : s.weights.device_data(),
                    s.output.device_data(), s.output.stride, s.output.rows, s.output.cols});
    most_bags = std::max(most_bags, s.output.rows);
    most_cols = std::max(most_cols, s.output.cols);
    aligned = aligned && aligned_by_four(s.table) && aligned_by_four(s.output);
  }
  if (most_bags == 0) return;
  const Buffer<Segment> on_device(host, stream);
  const std::int64_t width = aligned ? 4 : 1;
  unsigned lanes = kWarpSize;
  while (lanes > 1 && lanes / 2 * width >= most_cols) lanes /= 2;
  const dim3 block(lanes, kBlockSize / lanes);
  const dim3 grid(static_cast<unsigned>((most_bags + block.y - 1) / block.y),
                  static_cast<unsigned>(host.size()));
  const auto kernel = aligned ? pool_bags<4> : pool_bags<1>;
  launch(kernel, grid, block, 0, stream, on_device.device_data());
}

}  // namespace serrate
