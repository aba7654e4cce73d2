#include <algorithm>

#include "kernels/embedding/cuda/bag_search.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "serrate/kernels/bag_offsets.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

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

// How many of the ids [begin, end) have a row, for each thread's bag; `first` to `last` are those
// of all bags of the block, which reads them once, all together.
__device__ std::int64_t count_rows(const Scales& s, std::int64_t first, std::int64_t last,
                                   std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kTile = 2048, kWarp = 32, kIdsOfSector = 4;
  __shared__ unsigned has_row[kTile / kWarp];  // a bit for each id
  std::int64_t count = 0;
  for (std::int64_t tile = first / kIdsOfSector * kIdsOfSector; tile < last; tile += kTile) {
    __syncthreads();
    for (std::int64_t i = threadIdx.x; i < kTile; i += kBlockSize) {
      const std::int64_t id = tile + i < last ? s.ids[tile + i] : -1;
      const unsigned word = __ballot_sync(0xffffffff, id >= 0 && id < s.num_rows);
      if (i % kWarp == 0) has_row[i / kWarp] = word;
    }
    __syncthreads();
    const std::int64_t own_end = std::min(end - tile, kTile);
    for (std::int64_t i = std::max<std::int64_t>(begin - tile, 0); i < own_end;) {
      const std::int64_t next = std::min((i / kWarp + 1) * kWarp, own_end);
      const unsigned bits = has_row[i / kWarp] >> (i % kWarp) << (kWarp - (next - i));
      count += __popc(bits);
      i = next;
    }
  }
  return count;
}

// One thread per bag.
__global__ void write_scales(const Scales* segments, int num_segments) {
  __shared__ std::int64_t offsets[kBlockSize + 1];
  const Scales s = segment_of_block(segments, num_segments);
  const std::int64_t first = first_of_tile(s, kBlockSize);
  const std::int64_t num_bags = std::min<std::int64_t>(kBlockSize, s.num_bags - first);
  for (std::int64_t i = threadIdx.x; i <= num_bags; i += kBlockSize) {
    offsets[i] = s.offsets[first + i];
  }
  __syncthreads();
  const bool has_bag = threadIdx.x < num_bags;
  const std::int64_t begin = has_bag ? offsets[threadIdx.x] : 0;
  const std::int64_t end = has_bag ? offsets[threadIdx.x + 1] : 0;
  std::int64_t count = end - begin;
  if (s.ids) {
    const std::int64_t start = s.offsets[0];
    count =
        count_rows(s, offsets[0] - start, offsets[num_bags] - start, begin - start, end - start);
  }
  if (has_bag) s.scales[first + threadIdx.x] = count > 0 ? 1.0f / static_cast<float>(count) : 0.0f;
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
