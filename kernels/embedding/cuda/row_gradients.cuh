#pragma once

#include <algorithm>
#include <vector>

#include "kernels/cuda/fours.cuh"
#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/row_vector.cuh"
#include "kernels/cuda/search.cuh"
#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/embedding_update.h"

// What a row's occurrences are and what their gradients sum to. A row is done by one row of a
// block's threads (a warp, or the part of it that a narrow row needs), in occurrence order. There
// is one for each occurrence, as only sorting has told where rows begin: that of a row's first
// occurrence does the row. Of a row with very many occurrences, as Zipf's law gives, those of every
// 256th occurrence add up a chunk each; the last one to be done adds these in order and does the
// row.
namespace serrate {

/// Occurrences of a row that are added up together.
inline constexpr std::int64_t kChunkOccurrences = 256;

struct SegmentGradient {
  const float* data;
  std::int64_t stride;
};

/// RowGroups and the segments' gradients as a kernel sees them.
struct OccurrenceGroups {
  const std::uint64_t* occurrences;
  std::int64_t num_occurrences;
  OccurrenceFormat format;
  const float* weights;  // or null
  const SegmentGradient* gradients;
  std::int64_t cols;
  // Row o / kChunkOccurrences is that of the chunk whose first occurrence is o.
  Rows<float> chunk_sums;
  // Of a row whose first occurrence is o: at o / kChunkOccurrences; 0 between kernels.
  unsigned* done_chunks;

  __device__ std::int64_t row(std::int64_t o) const { return format.row(occurrences[o]); }
};

/// The lanes of this row of the block's threads, which are a warp or a part of one.
__device__ inline unsigned lanes_of_row() {
  const unsigned first = threadIdx.y * blockDim.x % kWarpSize;
  return 0xffffffff >> (kWarpSize - blockDim.x) << first;
}

__device__ inline float sum_over_lanes(float value) {
  for (unsigned lanes = blockDim.x / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(lanes_of_row(), value, static_cast<int>(lanes));
  }
  return value;
}

/// The occurrences [begin, end) of a row, and which of them this row of threads has come for: the
/// first, or the first of another chunk.
struct OccurrenceRun {
  std::int64_t row, begin, end, own;
};

/// Where a row begins that occurrence `inside` is of.
__device__ inline std::int64_t begin_of_row(const OccurrenceGroups& groups, std::int64_t row,
                                            std::int64_t inside) {
  std::int64_t step = 1;
  for (; inside >= step && groups.row(inside - step) == row; step *= 2) inside -= step;
  const std::int64_t low = std::max<std::int64_t>(inside - step, 0);
  if (groups.row(low) == row) return low;
  return low + 1 +
         last_at_most(inside - low, row - 1, [&](std::int64_t i) { return groups.row(low + i); });
}

/// Where a row ends that all occurrences before `end`, and at least one, are of.
__device__ inline std::int64_t end_of_row(const OccurrenceGroups& groups, std::int64_t row,
                                          std::int64_t end) {
  const std::int64_t size = groups.num_occurrences;
  std::int64_t step = 1;
  for (; end + step <= size && groups.row(end + step - 1) == row; step *= 2) end += step;
  return end + last_at_most(std::min(step, size - end + 1), row,
                            [&](std::int64_t i) { return groups.row(end - 1 + i); });
}

/// Where the chunks of a row with occurrences [begin, end) end: a row has none or at least two, of
/// kChunkOccurrences each, and what is left over is fewer than kChunkOccurrences.
__device__ inline std::int64_t end_of_chunks(std::int64_t begin, std::int64_t end) {
  const std::int64_t chunks = (end - begin) / kChunkOccurrences;
  return chunks > 1 ? begin + chunks * kChunkOccurrences : begin;
}

/// What a block keeps of the occurrences: those of its rows of threads, one before and one behind,
/// and that kChunkOccurrences before its last; and where the row before begins.
inline constexpr unsigned kNeighbourKeys = 4;

/// Calls f(run) in each row of a block's threads whose occurrence is the first of a row or of a
/// chunk. `keys` is shared, for blockDim.y + kNeighbourKeys of them. All threads call it, once.
template <typename F>
__device__ void for_own_row(const OccurrenceGroups& groups, std::uint64_t* keys, F f) {
  const std::int64_t size = groups.num_occurrences;
  const std::int64_t before = std::int64_t{blockIdx.x} * blockDim.y - 1;
  const std::int64_t chunk_before = before + blockDim.y - kChunkOccurrences;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, behind = blockDim.y + 1;
  for (unsigned k = thread; k <= behind + 1; k += blockDim.x * blockDim.y) {
    const std::int64_t o = k <= behind ? before + k : chunk_before;
    if (o >= 0 && o < size) keys[k] = groups.occurrences[o];
  }
  __syncthreads();
  const auto row_of = [&](unsigned k) { return groups.format.row(keys[k]); };
  // A row goes on from far enough before that a chunk of it may begin here.
  const bool goes_on =
      chunk_before >= 0 && row_of(0) == row_of(1) && row_of(behind + 1) == row_of(1);
  if (goes_on) {
    if (thread == 0) {
      const std::int64_t found = begin_of_row(groups, row_of(1), chunk_before);
      keys[behind + 2] = static_cast<std::uint64_t>(found);
    }
    __syncthreads();
  }
  unsigned k = threadIdx.y + 1;
  const std::int64_t own = before + k;
  if (own >= size) return;
  const std::int64_t row = row_of(k);
  std::int64_t begin = own;
  if (own > 0 && row_of(k - 1) == row) {
    if (!goes_on || row != row_of(1)) return;
    begin = static_cast<std::int64_t>(keys[behind + 2]);
    if ((own - begin) % kChunkOccurrences != 0) return;
  }
  ++k;
  while (k <= behind && before + k < size && row_of(k) == row) ++k;
  const std::int64_t end = k <= behind ? before + k : end_of_row(groups, row, before + k);
  if (begin == own || own < end_of_chunks(begin, end)) f(OccurrenceRun{row, begin, end, own});
}

/// Calls f(c) for this lane's of the columns [begin, end).
template <int kWidth, typename F>
__device__ void for_own_columns(std::int64_t begin, std::int64_t end, F f) {
  for (std::int64_t c = begin + threadIdx.x * kWidth; c < end; c += blockDim.x * kWidth) f(c);
}

/// sum += the gradients of occurrences [begin, end) at column c.
template <int kWidth>
__device__ void add_gradients(const OccurrenceGroups& groups, std::int64_t begin, std::int64_t end,
                              std::int64_t c, RowVector<kWidth>& sum) {
#pragma unroll 4
  for (std::int64_t o = begin; o < end; ++o) {
    const std::uint64_t key = groups.occurrences[o];
    const SegmentGradient gradient = groups.gradients[groups.format.segment(key)];
    const float weight = groups.weights ? groups.weights[o] : 1.0f;
    multiply_add(weight, load<kWidth>(gradient.data + groups.format.bag(key) * gradient.stride + c),
                 sum);
  }
}

/// Whether this row of threads is to do the row: where it has chunks, adds up its own, in columns
/// [begin, end), and is if that was the last. All lanes call it.
template <int kWidth>
__device__ bool sum_chunk(const OccurrenceGroups& groups, const OccurrenceRun& run,
                          std::int64_t begin, std::int64_t end) {
  const std::int64_t chunks = (end_of_chunks(run.begin, run.end) - run.begin) / kChunkOccurrences;
  if (chunks == 0) return true;
  for_own_columns<kWidth>(begin, end, [&](std::int64_t c) {
    RowVector<kWidth> sum{};
    add_gradients(groups, run.own, run.own + kChunkOccurrences, c, sum);
    store(sum, groups.chunk_sums.row(run.own / kChunkOccurrences) + c);
  });
  __syncwarp(lanes_of_row());
  unsigned is_last = 0;
  if (threadIdx.x == 0) {
    unsigned* const done = groups.done_chunks + run.begin / kChunkOccurrences;
    __threadfence();  // the sum comes before the count,
    is_last = atomicAdd(done, 1u) == chunks - 1;
    if (is_last) atomicExch(done, 0u);
    __threadfence();  // which comes before what the last one reads
  }
  __syncwarp(lanes_of_row());
  return __shfl_sync(lanes_of_row(), is_last, 0, static_cast<int>(blockDim.x));
}

/// The gradient of a row at column c.
template <int kWidth>
__device__ RowVector<kWidth> sum_gradients(const OccurrenceGroups& groups, const OccurrenceRun& run,
                                           std::int64_t c) {
  RowVector<kWidth> sum{};
  const std::int64_t rest = end_of_chunks(run.begin, run.end);
#pragma unroll 4
  for (std::int64_t o = run.begin; o < rest; o += kChunkOccurrences) {
    multiply_add(1.0f, load<kWidth>(groups.chunk_sums.row(o / kChunkOccurrences) + c), sum);
  }
  add_gradients(groups, rest, run.end, c, sum);
  return sum;
}

/// The segments' gradients on the device, and what the kernels need of the groups.
struct DeviceGroups {
  Buffer<SegmentGradient> gradients;
  Buffer<float> chunk_sums;
  Buffer<unsigned> done_chunks;
  OccurrenceGroups groups;
  bool aligned = true;

  DeviceGroups(const EmbeddingUpdate& args, const RowGroups& from, const Stream& stream) {
    std::vector<SegmentGradient> host;
    for (const GradientSegment& s : args.segments) {
      host.push_back({s.d_output.device_data(), s.d_output.stride});
      aligned = aligned && aligned_by_four(s.d_output);
    }
    gradients = Buffer<SegmentGradient>(host, stream);
    groups = {from.occurrences.device_data(),
              from.num_occurrences,
              occurrence_format(args.segments),
              from.weights.size() > 0 ? from.weights.device_data() : nullptr,
              gradients.device_data(),
              args.table.cols,
              {},
              nullptr};
    if (from.num_occurrences < 2 * kChunkOccurrences) return;
    const std::int64_t chunks = (from.num_occurrences + kChunkOccurrences - 1) / kChunkOccurrences;
    const std::int64_t stride = (args.table.cols + 3) / 4 * 4;
    chunk_sums = Buffer<float>(chunks * stride, stream);
    done_chunks = Buffer<unsigned>::zeros(chunks, stream);
    groups.chunk_sums = {chunk_sums.device_data(), stride};
    groups.done_chunks = done_chunks.device_data();
  }
};

inline unsigned blocks_for_occurrences(const RowGroups& groups, dim3 block) {
  return static_cast<unsigned>((groups.num_occurrences + block.y - 1) / block.y);
}

/// What for_own_row() has of shared memory, for its keys.
inline std::int64_t bytes_of_occurrence_keys(unsigned rows_of_threads) {
  return (rows_of_threads + kNeighbourKeys) * static_cast<std::int64_t>(sizeof(std::uint64_t));
}

}  // namespace serrate
