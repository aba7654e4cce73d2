// Lookup is bound by reading rows at random: a bag is a warp's (part of a warp's when rows are
// short), whose lanes read a row of the table together, 16 bytes each, several rows in flight.
#include <algorithm>

#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "kernels/embedding/cuda/table_rows.cuh"
#include "serrate/kernels/embedding_lookup.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

// LookupSegment as a kernel sees it.
struct RowsOfSegment {
  const void* table;
  std::int64_t table_stride;
  const std::int64_t* indices;
  const std::int64_t* offsets;
  const float* weights;  // or null
  float* output;
  std::int64_t output_stride;
  std::int64_t num_bags;
  std::int32_t cols;
  DataType type;
  std::int64_t first_block = 0;
};

// Lanes stride over the columns of a bag, and each adds up its own in the order of the indices.
template <int kWidth, class Value>
__device__ void pool_bag(const RowsOfSegment& s, std::int64_t bag) {
  const auto* const table = static_cast<const Value*>(s.table);
  const std::int64_t begin = s.offsets[bag] - s.offsets[0], end = s.offsets[bag + 1] - s.offsets[0];
  for (std::int64_t c = threadIdx.x * kWidth; c < s.cols; c += blockDim.x * kWidth) {
    RowVector<kWidth> sum{};
#pragma unroll 4
    for (std::int64_t i = begin; i < end; ++i) {
      const float weight = s.weights ? s.weights[i] : 1.0f;
      multiply_add(weight, load_values<kWidth>(table + s.indices[i] * s.table_stride + c), sum);
    }
    store(sum, s.output + bag * s.output_stride + c);
  }
}

// Each row of a block's threads has one bag.
template <int kWidth>
__global__ void pool_bags(const RowsOfSegment* segments, int num_segments) {
  const RowsOfSegment s = segment_of_block(segments, num_segments);
  const std::int64_t bag = first_of_tile(s, blockDim.y) + threadIdx.y;
  if (bag >= s.num_bags) return;
  switch (s.type) {
    case DataType::kFloat32:
      return pool_bag<kWidth, float>(s, bag);
    case DataType::kFloat16:
      return pool_bag<kWidth, Float16>(s, bag);
    case DataType::kBFloat16:
      return pool_bag<kWidth, BFloat16>(s, bag);
  }
}

}  // namespace

template <>
void embedding_lookup_on<DeviceType::kCuda>(std::span<const LookupSegment> segments,
                                            const Stream& stream) {
  std::int64_t most_cols = 0;
  bool aligned = true;
  for (const LookupSegment& s : segments) {
    most_cols = std::max(most_cols, s.output.cols);
    aligned = aligned && aligned_by_four(s.table) && aligned_by_four(s.output);
  }
  const dim3 block = rows_of_threads(most_cols, aligned ? 4 : 1, kBlockSize);
  SegmentTiles<RowsOfSegment> tiles;
  for (const LookupSegment& s : segments) {
    tiles.add(
        {s.table.device_data(), s.table.stride, s.indices.device_data(), s.offsets.device_data(),
         s.weights.empty() ? nullptr : s.weights.device_data(), s.output.device_data(),
         s.output.stride, s.output.rows, static_cast<std::int32_t>(s.output.cols), s.table.type},
        s.output.rows, block.y);
  }
  if (tiles.num_segments() == 0) return;
  const Buffer<RowsOfSegment> on_device = tiles.on_device(stream);
  launch(aligned ? pool_bags<4> : pool_bags<1>, tiles.num_blocks(), block, 0, stream,
         on_device.device_data(), tiles.num_segments());
}

}  // namespace serrate
