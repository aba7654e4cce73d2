#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/cuda/search.cuh"
#include "serrate/buffer.h"
#include "serrate/stream.h"

// Work of many segments in one launch: every block of threads has a tile of one segment. A Segment
// says in `first_block` which block is the first of its own.
namespace serrate {

/// Threads of a block.
inline constexpr int kBlockSize = 256;

/// The segments of a launch that have anything to do.
template <typename Segment>
class SegmentTiles {
 public:
  /// A segment of `size` items, of which a block does `tile`.
  void add(Segment segment, std::int64_t size, std::int64_t tile) {
    if (size == 0) return;
    segment.first_block = num_blocks_;
    segments_.push_back(segment);
    num_blocks_ += (size + tile - 1) / tile;
  }
  unsigned num_blocks() const { return static_cast<unsigned>(num_blocks_); }
  int num_segments() const { return static_cast<int>(segments_.size()); }
  Buffer<Segment> on_device(const Stream& stream) const { return {segments_, stream}; }

 private:
  std::vector<Segment> segments_;
  std::int64_t num_blocks_ = 0;
};

/// The segment that this block has a tile of. All its threads call it, once in a kernel: they read
/// it together.
template <typename Segment>
__device__ Segment segment_of_block(const Segment* segments, int num_segments) {
  using Word = std::uint64_t;
  constexpr unsigned kWords = sizeof(Segment) / sizeof(Word);
  static_assert(kWords * sizeof(Word) == sizeof(Segment));
  __shared__ Word words[kWords];
  const Segment* const own = segments + last_at_most(num_segments, blockIdx.x, [=](std::int64_t i) {
                               return segments[i].first_block;
                             });
  for (unsigned w = threadIdx.y * blockDim.x + threadIdx.x; w < kWords;
       w += blockDim.x * blockDim.y) {
    words[w] = reinterpret_cast<const Word*>(own)[w];
  }
  __syncthreads();
  Segment segment;
  memcpy(&segment, words, sizeof(segment));
  return segment;
}

/// The first item of this block's tile.
template <typename Segment>
__device__ std::int64_t first_of_tile(const Segment& segment, std::int64_t tile) {
  return (blockIdx.x - segment.first_block) * tile;
}

}  // namespace serrate
