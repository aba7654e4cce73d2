// Groups the occurrences of a step by row with CUB's radix sort, which is stable: with the row go
// the segment and the bag of an occurrence, in one word, and its weight.
#include <cub/device/device_radix_sort.cuh>
#include <cub/util_type.cuh>

#include <utility>

#include "kernels/embedding/cuda/bag_search.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/embedding_update.h"
#include "src/core/cuda_check.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

// The occurrences of a GradientSegment as a kernel sees them.
struct OccurrencesOfSegment {
  const std::int64_t* indices;
  const std::int64_t* offsets;
  const float* weights;  // or null
  std::int64_t num_bags, num_indices;
  std::int64_t number;            // of the segment
  std::int64_t first_occurrence;  // among those of all segments
  std::int64_t first_block = 0;
};

struct Occurrences {
  std::uint64_t* keys;
  float* weights;  // or null
};

// One thread per id of a segment.
__global__ void number_occurrences(const OccurrencesOfSegment* segments, int num_segments,
                                   OccurrenceFormat format, Occurrences out) {
  const OccurrencesOfSegment s = segment_of_block(segments, num_segments);
  const std::int64_t first = first_of_tile(s, kSearchBlock), i = first + threadIdx.x;
  const std::int64_t bag = bag_in_block(s.offsets, s.num_bags, first).index;
  if (i >= s.num_indices) return;
  const std::int64_t occurrence = s.first_occurrence + i;
  out.keys[occurrence] = format.key(s.indices[i], s.number, bag);
  if (out.weights) out.weights[occurrence] = s.weights ? s.weights[i] : 1.0f;
}

// Sorts by row, in place; the other arrays are as long.
void sort_by_row(int row_begin, int row_end, RowGroups& groups, const Stream& stream) {
  const std::int64_t size = groups.num_occurrences;
  cub::DoubleBuffer<std::uint64_t> keys(groups.occurrences.device_data(),
                                        groups.scratch.device_data());
  cub::DoubleBuffer<float> weights(groups.weights.device_data(),
                                   groups.scratch_weights.device_data());
  const auto sort = [&](void* memory, std::size_t& bytes) {
    if (groups.weights.size() > 0) {
      return cub::DeviceRadixSort::SortPairs(memory, bytes, keys, weights, size, row_begin, row_end,
                                             cuda_stream(stream));
    }
    return cub::DeviceRadixSort::SortKeys(memory, bytes, keys, size, row_begin, row_end,
                                          cuda_stream(stream));
  };
  std::size_t bytes = 0;
  cuda_check(sort(nullptr, bytes));
  Buffer<std::uint8_t> memory(static_cast<std::int64_t>(bytes), stream);
  cuda_check(sort(memory.device_data(), bytes));
  if (keys.selector != 0) std::swap(groups.occurrences, groups.scratch);
  if (weights.selector != 0) std::swap(groups.weights, groups.scratch_weights);
}

}  // namespace

template <>
void group_gradients_on<DeviceType::kCuda>(std::span<const GradientSegment> segments,
                                           std::int64_t num_rows, RowGroups& groups,
                                           const Stream& stream) {
  if (groups.num_occurrences == 0) return;
  const OccurrenceFormat format = occurrence_format(segments);
  const int row_end = format.row_begin() + bits_for(num_rows);
  check(row_end <= 64,
        "too many rows and bags for one update; a row and a bag's number have to fit in 64 bits");
  groups.scratch.resize_discard(groups.num_occurrences, stream);
  groups.scratch_weights.resize_discard(groups.weights.size(), stream);
  const bool weighted = groups.weights.size() > 0;
  const Occurrences occurrences{groups.occurrences.device_data(),
                                weighted ? groups.weights.device_data() : nullptr};
  SegmentTiles<OccurrencesOfSegment> tiles;
  std::int64_t first = 0;
  for (std::int64_t number = 0; number < std::ssize(segments); ++number) {
    const GradientSegment& s = segments[number];
    const std::int64_t size = std::ssize(s.indices);
    tiles.add({s.indices.device_data(), s.offsets.device_data(),
               s.weights.empty() ? nullptr : s.weights.device_data(), std::ssize(s.offsets) - 1,
               size, number, first},
              size, kSearchBlock);
    first += size;
  }
  const Buffer<OccurrencesOfSegment> on_device = tiles.on_device(stream);
  launch(number_occurrences, tiles.num_blocks(), kSearchBlock, 0, stream, on_device.device_data(),
         tiles.num_segments(), format, occurrences);
  sort_by_row(format.row_begin(), row_end, groups, stream);
}

}  // namespace serrate
