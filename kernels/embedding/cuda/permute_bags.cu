// Rows and bags are read and written once, a row of threads for each, 16 bytes a thread where rows
// are aligned so. To scatter, a bag looks for its row in every segment, as many as the table has
// row blocks, so that its sum is in the order of segments and needs no atomics.
#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/row_vector.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "serrate/kernels/permute_bags.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

// BagRows as a kernel sees it.
struct BagsOfSegment {
  const std::int64_t* bag_index;
  float* rows;
  float* bags;
  const float* scales;  // or null
  std::int64_t rows_stride, bags_stride;
  std::int64_t num_rows, num_bags, cols;
  std::int64_t first_block = 0;

  __device__ float scale(std::int64_t bag) const { return scales ? scales[bag] : 1.0f; }
};

BagsOfSegment segment(const BagRows& s) {
  return {.bag_index = s.bag_index.device_data(),
          .rows = s.rows.device_data(),
          .bags = s.bags.device_data(),
          .scales = s.bag_scale.empty() ? nullptr : s.bag_scale.device_data(),
          .rows_stride = s.rows.stride,
          .bags_stride = s.bags.stride,
          .num_rows = s.rows.rows,
          .num_bags = s.bags.rows,
          .cols = s.rows.cols};
}

// Calls f(c) for this thread's of the columns.
template <int kWidth, typename F>
__device__ void for_each_column(std::int64_t cols, F f) {
  for (std::int64_t c = threadIdx.x * kWidth; c < cols; c += blockDim.x * kWidth) f(c);
}

// A row of a block's threads has one row of the segment.
template <int kWidth>
__global__ void gather_tiles(const BagsOfSegment* segments, int num_segments) {
  const BagsOfSegment s = segment_of_block(segments, num_segments);
  const std::int64_t i = first_of_tile(s, blockDim.y) + threadIdx.y;
  if (i >= s.num_rows) return;
  const std::int64_t bag = s.bag_index[i];
  const float scale = s.scale(bag);
  for_each_column<kWidth>(s.cols, [&](std::int64_t c) {
    RowVector<kWidth> row{};
    multiply_add(scale, load<kWidth>(s.bags + bag * s.bags_stride + c), row);
    store(row, s.rows + i * s.rows_stride + c);
  });
}

// The segments with the same bags.
struct Target {
  std::int64_t first_segment, num_segments;
  float* bags;
  std::int64_t bags_stride, num_bags, cols;
  std::int64_t first_block = 0;
};

// The row of a bag, or -1. The index ascends without gaps where all bags have a row, and is at most
// as far behind as there are bags without.
__device__ std::int64_t row_of_bag(const BagsOfSegment& s, std::int64_t bag) {
  const std::int64_t without = s.num_bags - s.num_rows;
  const std::int64_t first = bag > without ? bag - without : 0;
  const std::int64_t last = bag < s.num_rows ? bag : s.num_rows - 1;
  if (first > last || s.bag_index[first] > bag) return -1;
  const std::int64_t row = first + last_at_most(last - first + 1, bag, [&](std::int64_t i) {
                             return s.bag_index[first + i];
                           });
  return s.bag_index[row] == bag ? row : -1;
}

// A row of a block's threads has one bag.
template <int kWidth>
__global__ void scatter_tiles(const Target* targets, int num_targets,
                              const BagsOfSegment* segments) {
  const Target target = segment_of_block(targets, num_targets);
  const std::int64_t bag = first_of_tile(target, blockDim.y) + threadIdx.y;
  if (bag >= target.num_bags) return;
  const BagsOfSegment* const own = segments + target.first_segment;
  for_each_column<kWidth>(target.cols, [&](std::int64_t c) {
    float* const to = target.bags + bag * target.bags_stride + c;
    RowVector<kWidth> sum = load<kWidth>(to);
    for (std::int64_t k = 0; k < target.num_segments; ++k) {
      const BagsOfSegment s = own[k];
      const std::int64_t row = row_of_bag(s, bag);
      if (row < 0) continue;
      multiply_add(s.scale(bag), load<kWidth>(s.rows + row * s.rows_stride + c), sum);
    }
    store(sum, to);
  });
}

// How threads share the columns of the segments.
struct Shape {
  std::int64_t most_cols = 0;
  bool aligned = true;

  explicit Shape(std::span<const BagRows> segments) {
    for (const BagRows& s : segments) {
      most_cols = std::max(most_cols, s.rows.cols);
      aligned = aligned && aligned_by_four(s.rows) && aligned_by_four(s.bags);
    }
  }
  dim3 block() const { return rows_of_threads(most_cols, aligned ? 4 : 1, kBlockSize); }
};

}  // namespace

template <>
void gather_bags_on<DeviceType::kCuda>(std::span<const BagRows> segments, const Stream& stream) {
  const Shape shape(segments);
  const dim3 block = shape.block();
  SegmentTiles<BagsOfSegment> tiles;
  for (const BagRows& s : segments) tiles.add(segment(s), s.rows.rows, block.y);
  if (tiles.num_segments() == 0) return;
  const Buffer<BagsOfSegment> on_device = tiles.on_device(stream);
  launch(shape.aligned ? gather_tiles<4> : gather_tiles<1>, tiles.num_blocks(), block, 0, stream,
         on_device.device_data(), tiles.num_segments());
}

template <>
void scatter_bags_on<DeviceType::kCuda>(std::span<const BagRows> segments, const Stream& stream) {
  const Shape shape(segments);
  const dim3 block = shape.block();
  std::vector<BagRows> by_bags(segments.begin(), segments.end());
  // Without rows there are perhaps no bags, which then begin where others do.
  std::erase_if(by_bags, [](const BagRows& s) { return s.rows.rows == 0; });
  std::ranges::stable_sort(by_bags, std::less<>(),
                           [](const BagRows& s) { return s.bags.device_data(); });
  SegmentTiles<Target> tiles;
  std::vector<BagsOfSegment> all;
  for (std::span<const BagRows> rest = by_bags; !rest.empty();) {
    const DeviceMatrix<float> bags = rest.front().bags;
    const auto end = std::ranges::find_if(
        rest, [&](const BagRows& s) { return s.bags.device_data() != bags.device_data(); });
    const std::int64_t count = end - rest.begin();
    tiles.add({std::ssize(all), count, bags.device_data(), bags.stride, bags.rows, bags.cols},
              bags.rows, block.y);
    for (const BagRows& s : rest.first(count)) all.push_back(segment(s));
    rest = rest.subspan(count);
  }
  if (tiles.num_segments() == 0) return;
  const Buffer<Target> targets = tiles.on_device(stream);
  const Buffer<BagsOfSegment> on_device(all, stream);
  launch(shape.aligned ? scatter_tiles<4> : scatter_tiles<1>, tiles.num_blocks(), block, 0, stream,
         targets.device_data(), tiles.num_segments(), on_device.device_data());
}

}  // namespace serrate
