// Ids are parted by a stable radix sort of their block numbers, over all features at once; a bag of
// a block then is a run of neighbours. What the sort leaves is read once to write all the rest, and
// no number is needed on the host.
#include <thrust/iterator/counting_iterator.h>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <cub/util_type.cuh>

#include <vector>

#include "kernels/embedding/cuda/bag_search.cuh"
#include "kernels/embedding/cuda/cub_call.cuh"
#include "kernels/embedding/cuda/segment_tiles.cuh"
#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/bucketize.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

// BucketizeSegment as a kernel sees it.
struct IdsOfSegment {
  const std::int64_t* values;
  const std::int64_t* offsets;
  const float* weights;  // or null
  std::int64_t num_bags, num_ids;
  std::int64_t number;           // of the segment
  std::int64_t first_id;         // among those of all segments
  std::int64_t first_row_block;  // among those of all segments
  std::int64_t num_row_blocks;
  std::int64_t num_rows;
  std::int64_t first_block = 0;
};

// What is known of every id, in the order of the segments.
struct Ids {
  std::uint64_t* keys;  // KeyFormat: the row block, then the number of the id
  std::int64_t* rows;   // in the block
  std::int64_t* bags;
  float* weights;  // or null
};

struct Outside {
  OutsideIds policy;
  unsigned long long* counts;  // [segments]
  unsigned long long* firsts;  // [segments]
};

// One thread per id. first_rows has the first row of every row block.
__global__ void number_ids(const IdsOfSegment* segments, int num_segments,
                           const std::int64_t* first_rows, std::int64_t num_row_blocks,
                           KeyFormat format, Outside outside, Ids out) {
  const IdsOfSegment s = segment_of_block(segments, num_segments);
  const std::int64_t first = first_of_tile(s, kSearchBlock), i = first + threadIdx.x;
  const bool is_there = i < s.num_ids;
  std::int64_t row = is_there ? s.values[i] : 0, block = num_row_blocks;  // behind all: left out
  const bool is_outside = is_there && (row < 0 || row >= s.num_rows);
  if (is_outside) {
    atomicAdd(outside.counts + s.number, 1ull);
    atomicMin(outside.firsts + s.number, static_cast<unsigned long long>(i));
    row = s.num_rows - 1;
  }
  const Found own = find_in_block(first_rows + s.first_row_block, s.num_row_blocks, row);
  const Found bag = bag_in_block(s.offsets, s.num_bags, first);
  if (!is_there) return;
  if (!is_outside || outside.policy == OutsideIds::kLastRow) {
    block = s.first_row_block + own.index;
    row -= own.value;
  }
  const std::int64_t id = s.first_id + i;
  out.keys[id] = format.key(block, id);
  out.rows[id] = row;
  out.bags[id] = bag.index;
  if (out.weights) out.weights[id] = s.weights[i];
}

// Whether a new bag begins at position i of the sorted ids.
struct BeginsBag {
  const std::uint64_t* sorted;
  const std::int64_t* bags;
  KeyFormat format;
  std::int64_t num_row_blocks;

  __device__ bool operator()(std::int64_t i) const {
    const std::uint64_t key = sorted[i];
    if (format.row(key) == num_row_blocks) return false;
    if (i == 0 || format.row(key) != format.row(sorted[i - 1])) return true;
    return bags[format.occurrence(key)] != bags[format.occurrence(sorted[i - 1])];
  }
};

// The arrays of BucketizedIds.
struct Result {
  std::int64_t *bag_splits, *id_splits, *bag_index, *offsets, *ids;
  float* weights;  // or null
};

// One thread per sorted id, and one more behind them. offsets has where the num_bags bags begin.
__global__ void write_blocks(const std::uint64_t* sorted, std::int64_t size, KeyFormat format,
                             std::int64_t num_row_blocks, const std::int64_t* num_bags_at, Ids from,
                             Result to) {
  __shared__ std::int64_t num_bags;
  if (threadIdx.x == 0) num_bags = *num_bags_at;
  __syncthreads();
  const std::int64_t first = std::int64_t{blockIdx.x} * kSearchBlock, i = first + threadIdx.x;
  const std::uint64_t key = i < size ? sorted[i] : 0;
  const std::int64_t block = i < size ? format.row(key) : num_row_blocks;
  std::int64_t block_before = __shfl_up_sync(~0u, block, 1);
  if (threadIdx.x % 32 == 0) {
    block_before = i == 0 ? -1 : i <= size ? format.row(sorted[i - 1]) : num_row_blocks;
  }
  const Found bag = bag_in_block(to.offsets, num_bags, first);
  for (std::int64_t b = block_before + 1; b <= block; ++b) {
    to.id_splits[b] = i;
    to.bag_splits[b] = bag.index + (bag.value < i);  // those that begin before i
    if (b == num_row_blocks) to.offsets[num_bags] = i;
  }
  if (block == num_row_blocks) return;
  const std::int64_t id = format.occurrence(key);
  if (bag.value == i) to.bag_index[bag.index] = from.bags[id];
  to.ids[i] = from.rows[id];
  if (to.weights) to.weights[i] = from.weights[id];
}

}  // namespace

template <>
void bucketize_on<DeviceType::kCuda>(std::span<const BucketizeSegment> segments, OutsideIds outside,
                                     BucketizedIds& result, const Stream& stream) {
  const std::int64_t num_row_blocks = result.num_blocks, num_splits = num_row_blocks + 1;
  SegmentTiles<IdsOfSegment> tiles;
  std::vector<std::int64_t> first_rows;
  std::int64_t n = 0;
  for (std::int64_t number = 0; number < std::ssize(segments); ++number) {
    const BucketizeSegment& s = segments[number];
    const std::int64_t num_ids = s.bags.num_values();
    tiles.add({.values = s.bags.values.device_data(),
               .offsets = s.bags.offsets.device_data(),
               .weights = s.bags.weights.device_data(),
               .num_bags = s.bags.num_bags(),
               .num_ids = num_ids,
               .number = number,
               .first_id = n,
               .first_row_block = std::ssize(first_rows),
               .num_row_blocks = std::ssize(s.row_splits) - 1,
               .num_rows = s.row_splits.back()},
              num_ids, kSearchBlock);
    n += num_ids;
    first_rows.insert(first_rows.end(), s.row_splits.begin(), s.row_splits.end() - 1);
  }
  std::vector<std::int64_t> no_outside(2 * segments.size(), 0);
  std::fill(no_outside.begin() + std::ssize(segments), no_outside.end(), -1);
  std::int64_t* const sizes = result.sizes.device_data();
  copy_from_host<std::int64_t>(no_outside, result.sizes.span().last(no_outside.size()), stream);

  const KeyFormat format = key_format(num_row_blocks, n);
  const bool weighted = result.weights.size() > 0;
  Buffer<std::uint64_t> keys(2 * n, stream);
  Buffer<std::int64_t> rows(n, stream), bags(n, stream);
  Buffer<float> weights(weighted ? n : 0, stream);
  Buffer<std::int64_t> num_bags = Buffer<std::int64_t>::zeros(1, stream);
  const Ids ids{keys.device_data(), rows.device_data(), bags.device_data(), weights.device_data()};
  const std::uint64_t* sorted = keys.device_data();
  if (n > 0) {
    auto* const counts = reinterpret_cast<unsigned long long*>(sizes + 2 * num_splits);
    const Buffer<IdsOfSegment> on_device = tiles.on_device(stream);
    const Buffer<std::int64_t> first_rows_on_device(first_rows, stream);
    launch(number_ids, tiles.num_blocks(), kSearchBlock, 0, stream, on_device.device_data(),
           tiles.num_segments(), first_rows_on_device.device_data(), num_row_blocks, format,
           Outside{outside, counts, counts + segments.size()}, ids);
    cub::DoubleBuffer<std::uint64_t> buffers(keys.device_data(), keys.device_data() + n);
    with_temporary_memory(stream, [&](void* memory, std::size_t& bytes) {
      return cub::DeviceRadixSort::SortKeys(memory, bytes, buffers, n, format.occurrence_bits,
                                            format.occurrence_bits + format.row_bits,
                                            cuda_stream(stream));
    });
    sorted = buffers.Current();
    with_temporary_memory(stream, [&](void* memory, std::size_t& bytes) {
      return cub::DeviceSelect::If(memory, bytes, thrust::counting_iterator<std::int64_t>(0),
                                   result.offsets.device_data(), num_bags.device_data(), n,
                                   BeginsBag{sorted, ids.bags, format, num_row_blocks},
                                   cuda_stream(stream));
    });
  }
  const Result to{sizes,
                  sizes + num_splits,
                  result.bag_index.device_data(),
                  result.offsets.device_data(),
                  result.ids.device_data(),
                  weighted ? result.weights.device_data() : nullptr};
  launch(write_blocks, static_cast<unsigned>(n / kSearchBlock + 1), kSearchBlock, 0, stream, sorted,
         n, format, num_row_blocks, num_bags.device_data(), ids, to);
}

}  // namespace serrate
