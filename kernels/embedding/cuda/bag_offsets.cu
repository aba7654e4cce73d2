#include "kernels/embedding/cuda/bag_search.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "serrate/kernels/bag_offsets.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kBlockSize = 256;

struct Scales {
  const std::int64_t* offsets;
  float* scales;
  const std::int64_t* ids;  // or null
  std::int64_t num_rows;
  std::int64_t num_bags;
  std::int64_t first_block = 0;
};

struct Bags {
  const std::int64_t* offsets;
  std::int64_t* bags;
  std::int64_t num_bags;
  std::int64_t num_ids;
  std::int64_t first_block = 0;
};

// One thread per bag.
__global__ void write_scales(const Scales* segments, int num_segments) {
  const Scales s = segment_of_block(segments, num_segments);
  const std::int64_t bag = first_of_tile(s, kBlockSize) + threadIdx.x;
  if (bag >= s.num_bags) return;
  const std::int64_t begin = s.offsets[bag] - s.offsets[0], end = s.offsets[bag + 1] - s.offsets[0];
  std::int64_t count = end - begin;
  if (s.ids) {
    for (std::int64_t i = begin; i < end; ++i) count -= s.ids[i] < 0 || s.ids[i] >= s.num_rows;
  }
  s.scales[bag] = count > 0 ? 1.0f / static_cast<float>(count) : 0.0f;
}

// One thread per id.
__global__ void write_bags(const Bags* segments, int num_segments) {
  const Bags s = segment_of_block(segments, num_segments);
  const std::int64_t first = first_of_tile(s, kSearchBlock), i = first + threadIdx.x;
  const std::int64_t bag = bag_in_block(s.offsets, s.num_bags, first).index;
  if (i < s.num_ids) s.bags[i] = bag;
}

}  // namespace

template <>
void mean_scales_on<DeviceType::kCuda>(std::span<const MeanScales> segments, const Stream& stream) {
  SegmentTiles<Scales> tiles;
  for (const MeanScales& s : segments) {
    const std::int64_t num_bags = std::ssize(s.scales);
    tiles.add({s.offsets.device_data(), s.scales.device_data(),
               s.ids.empty() ? nullptr : s.ids.device_data(), s.num_rows, num_bags},
              num_bags, kBlockSize);
  }
  if (tiles.num_segments() == 0) return;
  const Buffer<Scales> on_device = tiles.on_device(stream);
  launch(write_scales, tiles.num_blocks(), kBlockSize, 0, stream, on_device.device_data(),
         tiles.num_segments());
}

template <>
void bags_of_ids_on<DeviceType::kCuda>(std::span<const BagsOfIds> segments, const Stream& stream) {
  SegmentTiles<Bags> tiles;
  for (const BagsOfIds& s : segments) {
    const std::int64_t num_ids = std::ssize(s.bags);
    tiles.add({s.offsets.device_data(), s.bags.device_data(), std::ssize(s.offsets) - 1, num_ids},
              num_ids, kSearchBlock);
  }
  if (tiles.num_segments() == 0) return;
  const Buffer<Bags> on_device = tiles.on_device(stream);
  launch(write_bags, tiles.num_blocks(), kSearchBlock, 0, stream, on_device.device_data(),
         tiles.num_segments());
}

}  // namespace serrate
