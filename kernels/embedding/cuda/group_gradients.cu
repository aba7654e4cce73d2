// Groups the occurrences of a step by row with CUB's radix sort, which is stable. The number of
// rows stays on the device: buffers have room for as many rows as there are occurrences.
#include <thrust/iterator/counting_iterator.h>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <cub/util_type.cuh>

#include <vector>

#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/embedding_update.h"
#include "src/core/cuda_check.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kBlockSize = 256;

unsigned blocks_for(std::int64_t threads) {
  return static_cast<unsigned>((threads + kBlockSize - 1) / kBlockSize);
}

// The bag that holds value i of a jagged array: the last one that begins at or before it.
__device__ std::int64_t bag_at(const std::int64_t* offsets, std::int64_t num_bags, std::int64_t i) {
  std::int64_t low = 0, high = num_bags;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    if (offsets[middle] - offsets[0] <= i) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

struct Occurrences {
  std::uint64_t* keys;
  std::uint64_t* bags;  // in the order of occurrences
  float* weights;       // the same, or null
};

// One thread per id of a segment, whose first occurrence is number `first`.
__global__ void number_occurrences(const std::int64_t* indices, std::int64_t num_indices,
                                   const std::int64_t* offsets, std::int64_t num_bags,
                                   const float* weights, std::int64_t segment, std::int64_t first,
                                   KeyFormat format, Occurrences out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlockSize + threadIdx.x;
  if (i >= num_indices) return;
  out.keys[first + i] = format.key(indices[i], first + i);
  out.bags[first + i] = pack_bag(segment, bag_at(offsets, num_bags, i));
  if (out.weights) out.weights[first + i] = weights ? weights[i] : 1.0f;
}

struct BeginsRow {
  const std::uint64_t* sorted;
  KeyFormat format;

  __device__ bool operator()(std::int64_t i) const {
    return i == 0 || format.row(sorted[i]) != format.row(sorted[i - 1]);
  }
};

// What write_groups fills: the arrays of RowGroups.
struct Groups {
  const std::int64_t* num_rows;
  std::int64_t* rows;
  std::int64_t* row_offsets;
  std::uint64_t* occurrences;
  float* weights;  // or null
};

// One thread per occurrence in sorted order; the first num_rows of them also write a row each.
__global__ void write_groups(const std::uint64_t* sorted, std::int64_t size, Occurrences from,
                             KeyFormat format, Groups to) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlockSize + threadIdx.x;
  if (i >= size) return;
  const std::int64_t num_rows = *to.num_rows;
  if (i == 0) to.row_offsets[num_rows] = size;
  if (i < num_rows) to.rows[i] = format.row(sorted[to.row_offsets[i]]);
  const std::int64_t occurrence = format.occurrence(sorted[i]);
  to.occurrences[i] = from.bags[occurrence];
  if (to.weights) to.weights[i] = from.weights[occurrence];
}

// CUB's calls ask for their temporary memory in a first call, f(nullptr, bytes).
template <typename F>
void with_temporary_memory(const Stream& stream, F f) {
  std::size_t bytes = 0;
  cuda_check(f(nullptr, bytes));
  Buffer<std::uint8_t> memory(static_cast<std::int64_t>(bytes), stream);
  cuda_check(f(memory.device_data(), bytes));
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
  std::int64_t first = 0;
  for (std::int64_t s = 0; s < std::ssize(segments); ++s) {
    const std::int64_t size = std::ssize(segments[s].indices);
    if (size == 0) continue;
    const float* segment_weights =
        segments[s].weights.empty() ? nullptr : segments[s].weights.device_data();
    launch(number_occurrences, blocks_for(size), kBlockSize, 0, stream,
           segments[s].indices.device_data(), size, segments[s].offsets.device_data(),
           std::ssize(segments[s].offsets) - 1, segment_weights, s, first, format, occurrences);
    first += size;
  }
  const std::uint64_t* sorted = sort_by_row(scratch, scratch + n, n, format, stream);
  find_rows(sorted, format, groups, stream);
  const Groups to{groups.num_rows.device_data(), groups.rows.device_data(),
                  groups.row_offsets.device_data(), groups.occurrences.device_data(),
                  weighted ? groups.weights.device_data() : nullptr};
  launch(write_groups, blocks_for(n), kBlockSize, 0, stream, sorted, n, occurrences, format, to);
}

}  // namespace serrate
