// Groups the occurrences of a step by row with CUB's radix sort, which is stable. The number of
// rows stays on the device: buffers have room for as many rows as there are occurrences.
#include <thrust/iterator/counting_iterator.h>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <cub/util_type.cuh>

#include "kernels/embedding/cuda/bag_search.cuh"
#include "kernels/embedding/cuda/cub_call.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/embedding_update.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>((threads + kBlockSize - 1) / kBlockSize);
}

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
  std::uint64_t* bags;  // in the order of occurrences
  float* weights;       // the same, or null
};

// One thread per id of a segment.
__global__ void number_occurrences(const OccurrencesOfSegment* segments, int num_segments,
                                   KeyFormat format, Occurrences out) {
  const OccurrencesOfSegment s = segment_of_block(segments, num_segments);
  const std::int64_t first = first_of_tile(s, kSearchBlock), i = first + threadIdx.x;
  const std::int64_t bag = bag_in_block(s.offsets, s.num_bags, first).index;
  if (i >= s.num_indices) return;
  const std::int64_t occurrence = s.first_occurrence + i;
  out.keys[occurrence] = format.key(s.indices[i], occurrence);
  out.bags[occurrence] = pack_bag(s.number, bag);
  if (out.weights) out.weights[occurrence] = s.weights ? s.weights[i] : 1.0f;
}

struct BeginsRow {
  const std::uint64_t* sorted;
  KeyFormat format;

  __device__ bool operator()(std::int64_t i) const {
    return i == 0 || format.row(sorted[i]) != format.row(sorted[i - 1]);
  }
};

// What write_groups fills: the arrays of RowGroups.
struct GroupPlaces {
  const std::int64_t* num_rows;
  std::int64_t* rows;
  std::int64_t* row_offsets;
  std::uint64_t* occurrences;
  float* weights;  // or null
};

// One thread per occurrence in sorted order; the first num_rows of them also write a row each.
__global__ void write_groups(const std::uint64_t* sorted, std::int64_t size, Occurrences from,
                             KeyFormat format, GroupPlaces to) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlockSize + threadIdx.x;
  if (i >= size) return;
  const std::int64_t num_rows = *to.num_rows;
  if (i == 0) to.row_offsets[num_rows] = size;
  if (i < num_rows) to.rows[i] = format.row(sorted[to.row_offsets[i]]);
  const std::int64_t occurrence = format.occurrence(sorted[i]);
  to.occurrences[i] = from.bags[occurrence];
  if (to.weights) to.weights[i] = from.weights[occurrence];
}

// Sorts by row; returns the one of the two arrays that holds the result.
const std::uint64_t* sort_by_row(std::uint64_t* keys, std::uint64_t* other, std::int64_t size,
                                 KeyFormat format, const Stream& stream) {
  cub::DoubleBuffer<std::uint64_t> buffers(keys, other);
  with_temporary_memory(stream, [&](void* memory, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortKeys(memory, bytes, buffers, size, format.occurrence_bits,
                                          format.occurrence_bits + format.row_bits,
                                          cuda_stream(stream));
  });
  return buffers.Current();
}

// row_offsets[r] = position of the first occurrence of row r; num_rows.
void find_rows(const std::uint64_t* sorted, KeyFormat format, RowGroups& groups,
               const Stream& stream) {
  with_temporary_memory(stream, [&](void* memory, std::size_t& bytes) {
    return cub::DeviceSelect::If(memory, bytes, thrust::counting_iterator<std::int64_t>(0),
                                 groups.row_offsets.device_data(), groups.num_rows.device_data(),
                                 groups.num_occurrences, BeginsRow{sorted, format},
                                 cuda_stream(stream));
  });
}

}  // namespace

template <>
void group_gradients_on<DeviceType::kCuda>(std::span<const GradientSegment> segments,
                                           std::int64_t num_rows, RowGroups& groups,
                                           const Stream& stream) {
  const std::int64_t n = groups.num_occurrences;
  if (n == 0) {
    fill_zero(groups.num_rows.span(), stream);
    fill_zero(groups.row_offsets.span(), stream);
    return;
  }
  const KeyFormat format = key_format(num_rows, n);
  const bool weighted = groups.weights.size() > 0;
  std::uint64_t* scratch = groups.scratch.resize_discard(3 * n, stream).device_data();
  Buffer<float> weights(weighted ? n : 0, stream);
  const Occurrences occurrences{scratch, scratch + 2 * n, weights.device_data()};
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
  const std::uint64_t* sorted = sort_by_row(scratch, scratch + n, n, format, stream);
  find_rows(sorted, format, groups, stream);
  const GroupPlaces to{groups.num_rows.device_data(), groups.rows.device_data(),
                       groups.row_offsets.device_data(), groups.occurrences.device_data(),
                       weighted ? groups.weights.device_data() : nullptr};
  launch(write_groups, blocks_for(n), kBlockSize, 0, stream, sorted, n, occurrences, format, to);
}

}  // namespace serrate
