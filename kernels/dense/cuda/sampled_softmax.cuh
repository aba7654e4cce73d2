#pragma once

#include "kernels/cuda/block_sums.cuh"
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

/// How sums are written to memory.
enum class IntoSum { kOverwrite, kAdd };

/// Where the sums over tokens go. A block has a tile of negatives, blockIdx.x, in columns
/// blockIdx.z, and a chunk of the tokens, blockIdx.y.
struct NegativeGradients {
  Rows<float> d_negatives;
  float* parts;  // [gridDim.y, negatives, dim], of each chunk of tokens; null if there is but one
  unsigned* done_blocks;

  __device__ Rows<float> of_block(const Softmax& args) const {
    return parts ? Rows<float>{parts + blockIdx.y * args.negatives.size * args.dim, args.dim}
                 : d_negatives;
  }
  __device__ IntoSum into() const { return parts ? IntoSum::kOverwrite : IntoSum::kAdd; }

  /// By all of the block when it has written its own, of `cols` columns from `first_col` on: the
  /// last block of the tile adds up the parts. T: float, or Four where columns are whole ones.
  template <typename T>
  __device__ void add_parts(const Softmax& args, std::int64_t first_col, std::int64_t cols) const {
    if (!parts) return;
    const std::int64_t size = args.negatives.size, first = std::int64_t{blockIdx.x} * kTile;
    float* const part = parts + first * args.dim + first_col;
    const auto sum = SummedParts<T>::of(part, size * args.dim, args.dim,
                                        std::min<std::int64_t>(kTile, size - first), cols);
    const unsigned tile = blockIdx.z * gridDim.x + blockIdx.x;
    unsigned* const done = done_blocks + tile * counters_of_sum(gridDim.y);
    if (!sum_over_blocks(sum, blockIdx.y, gridDim.y, done)) return;
    for_each_value_of_block(sum.rows, static_cast<unsigned>(cols), [&](unsigned row, unsigned col) {
      d_negatives.row(first + row)[first_col + col] += part[row * args.dim + col];
    });
  }
};

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
  /// d_negatives, from max and scale.
  void sum_over_tokens(const Softmax& args, const NegativeGradients& gradients, std::int64_t chunks,
                       const Stream& stream) const;

 private:
  Precision precision_;
  // Tokens, then negatives: whole tiles, with zeros behind rows and columns.
  Buffer<std::uint32_t> rounded_;
  std::int64_t negatives_begin_ = 0;
};

}  // namespace serrate
