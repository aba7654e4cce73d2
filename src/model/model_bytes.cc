#include "src/model/model_bytes.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "serrate/bfloat16.h"
#include "src/core/checked_math.h"
#include "src/model/dense_parameters.h"

namespace serrate {
namespace {

constexpr double kFloatBytes = sizeof(float);

double feed_forward(const SequenceModelOptions& options) {
  return static_cast<double>(options.feed_forward_dim > 0 ? options.feed_forward_dim
                                                          : 4 * options.dim);
}

// Values of DenseParameters, with what lies between them.
double num_parameters(const SequenceModelOptions& options) {
  const auto dim = static_cast<double>(options.dim), wide = feed_forward(options);
  const auto aligned = [](std::initializer_list<double> sizes) {
    double sum = 0;
    for (const double size : sizes) {
      sum += std::ceil(size / kParameterAlignment) * kParameterAlignment;
    }
    return sum;
  };
  const double block = aligned({dim, dim, 3 * dim * dim, 3 * dim, dim * dim, dim, dim, dim,
                                wide * dim, wide, dim * wide, dim});
  return aligned({static_cast<double>(options.max_length) * dim, dim, dim}) +
         static_cast<double>(options.num_blocks) * block;
}

}  // namespace

// In floating point, which is exact up to 2^53 and does not overflow beyond.

std::int64_t parameter_bytes(const SequenceModelOptions& options) {
  return bytes_of(num_parameters(options) * kFloatBytes);
}

std::int64_t activation_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                              std::int64_t num_negatives) {
  const auto dim = static_cast<double>(options.dim), wide = feed_forward(options);
  const bool is_bf16 = options.precision == Precision::kBf16;
  const double stored = is_bf16 ? sizeof(BFloat16) : kFloatBytes;
  // Two norms' outputs, q, k and v, the attention's output, and the feed-forward's inside before
  // and after the activation (relu on a GPU keeps less of what is before it); statistics,
  // log-sum-exp and both residuals.
  const double block = stored * (6 * dim + 2 * wide) +
                       kFloatBytes * (2 * dim + 4 + static_cast<double>(options.num_heads));
  // Around the blocks: gradients of three widths and a projection before dropout; tokens, hidden
  // states, statistics and d_hidden.
  const double around = stored * (dim + 3 * dim + wide + dim) + kFloatBytes * (2 * dim + 2 + dim);
  const double normalized = options.l2_normalize ? dim + 1 : 0;  // and d_negatives
  const double token =
      static_cast<double>(options.num_blocks) * block + around + kFloatBytes * 2 * normalized;
  const double bytes =
      static_cast<double>(num_tokens) * token + static_cast<double>(num_negatives) * kFloatBytes *
                                                    (options.l2_normalize ? normalized + dim : 0);
  constexpr double kSlack = 1.25;  // Buffer::resize_discard
  const double rounded = is_bf16 ? num_parameters(options) * sizeof(BFloat16) : 0;
  return bytes_of(rounded + bytes * kSlack);
}

std::int64_t gpu_workspace_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                                 std::int64_t num_negatives) {
  // kTile and kWantedBlocks of kernels/dense/cuda/sampled_softmax.cu: few tiles are summed in
  // chunks, up to so many more than there are tiles.
  constexpr double kTile = 64, kMoreChunks = 528;
  const double rows = static_cast<double>(num_tokens) + static_cast<double>(num_negatives);
  const double sums = (rows + 2 * kMoreChunks * kTile) * static_cast<double>(options.dim);
  // Rounded to whole tiles whose columns are a power of 2.
  const double padded =
      (rows + 2 * kTile) * 2 * static_cast<double>(std::max<std::int64_t>(options.dim, 16));
  const double rounded = options.precision == Precision::kFp32   ? 0
                         : options.precision == Precision::kBf16 ? padded / 2
                                                                 : padded;
  // kTokenTile and kMostParts of kernels/dense/cuda/token_embedding.cu, which runs when the head's
  // are free again: gradients of positions, of each part of the tokens.
  const double parts = std::min(64.0, std::ceil(static_cast<double>(num_tokens) / 1024));
  const double positions =
      parts * static_cast<double>(options.max_length) * static_cast<double>(options.dim);
  return bytes_of(std::max(sums + rounded, positions) * sizeof(float));
}

}  // namespace serrate
