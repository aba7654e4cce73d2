#pragma once

#include "kernels/cuda/product_tile.cuh"
#include "serrate/buffer.h"
#include "serrate/kernels/sampled_softmax.h"

// What the plain kernels of the sampled softmax and those on tensor cores share.
namespace serrate {

/// A side of the logits: rows with their ids.
struct SoftmaxSide {
  Rows<const float> rows;
  const std::int64_t* ids;
  std::int64_t size;
};

/// SampledSoftmax as kernels see it, with what they leave each other.
struct Softmax {
  SoftmaxSide tokens, negatives;  // tokens: hidden, target ids
  std::int64_t dim;
  float inverse_temperature, d_loss;
  // For each chunk of negatives and token, [chunks, n]: largest logit, sum of e.
  float *maxima, *sums;
  float* weighted;  // [chunks, n, dim]: sum of e times the negative's row; or null
  // For each token: the largest logit, d_loss / (temperature times the sum of all e).
  float *max, *scale;
};

/// Which tiles a block goes over: tile blockIdx.x of one side, chunk blockIdx.y of the other.
struct SoftmaxChunk {
  std::int64_t first;       // of the tile
  std::int64_t begin, end;  // of the chunk
};

__device__ inline SoftmaxChunk chunk_of_block(std::int64_t other_size) {
  const std::int64_t tiles = (other_size + kTile - 1) / kTile;
  const std::int64_t begin = tiles * blockIdx.y / gridDim.y * kTile;
  const std::int64_t end = tiles * (blockIdx.y + 1) / gridDim.y * kTile;
  return {std::int64_t{blockIdx.x} * kTile, begin, std::min(end, other_size)};
}

inline dim3 grid_of(std::int64_t tiles, std::int64_t chunks, std::int64_t slices) {
  return {static_cast<unsigned>(tiles), static_cast<unsigned>(chunks),
          static_cast<unsigned>(slices)};
}

/// The sums over one side, on tensor cores.
class SoftmaxOnTensorCores {
 public:
  static constexpr std::int64_t kMostColumns = 256;

  /// Whether they are for such a call: in tf32 or bf16, of at most kMostColumns, whose tiles fit in
  /// the shared memory of a block (those of 256 columns in tf32 not in 99 KiB).
  static bool take(const SampledSoftmax& args, const Stream& stream);

  /// Rounds the rows of both sides to `precision`, kTf32 or kBf16.
  SoftmaxOnTensorCores(const SampledSoftmax& args, const Stream& stream);

  /// maxima, sums and weighted.
  void sum_over_negatives(const Softmax& args, std::int64_t chunks, const Stream& stream) const;
  /// Chunk c of d_negatives, [chunks * negatives, dim], from max and scale.
  void sum_over_tokens(const Softmax& args, DeviceMatrix<float> d_negatives, std::int64_t chunks,
                       const Stream& stream) const;

 private:
  Precision precision_;
  // Tokens, then negatives: whole tiles, with zeros behind rows and columns.
  Buffer<std::uint32_t> rounded_;
  std::int64_t negatives_begin_ = 0;
};

}  // namespace serrate
