#include "src/model/model_bytes.h"

#include <algorithm>

#include "src/core/checked_math.h"

namespace serrate {
namespace {

constexpr double kFloatBytes = sizeof(float);

double feed_forward(const SequenceModelOptions& options) {
  return static_cast<double>(options.feed_forward_dim > 0 ? options.feed_forward_dim
                                                          : 4 * options.dim);
}

}  // namespace

// In floating point, which is exact up to 2^53 and does not overflow beyond.

std::int64_t parameter_bytes(const SequenceModelOptions& options) {
  const auto dim = static_cast<double>(options.dim), wide = feed_forward(options);
  const double attention = 3 * dim * (dim + 1) + dim * (dim + 1);  // qkv, out
  const double mlp = wide * (dim + 1) + dim * (wide + 1);          // up, down
  const double norm = 2 * dim;
  const double positions = static_cast<double>(options.max_length) * dim;
  const double blocks = static_cast<double>(options.num_blocks) * (attention + mlp + 2 * norm);
  return bytes_of((positions + blocks + norm) * kFloatBytes);
}

std::int64_t activation_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                              std::int64_t num_negatives) {
  const auto dim = static_cast<double>(options.dim), wide = feed_forward(options);
  // Two norms' outputs and statistics, q, k and v, the attention's output and log-sum-exp, both
  // residuals, and the feed-forward's inside before and after the activation.
  const double block = 8 * dim + 2 * wide + 4 + static_cast<double>(options.num_heads);
  // Around the blocks: tokens, hidden states, statistics; gradients of three widths, a projection
  // before dropout and d_hidden.
  const double around = 2 * dim + 2 + (dim + 3 * dim + wide) + dim + dim;
  const double normalized = options.l2_normalize ? dim + 1 : 0;
  // In bf16 the widest layer's input and gradient, rounded to half as many bytes.
  const double rounded =
      options.precision == Precision::kBf16 ? (dim + std::max(wide, 3 * dim)) / 2 : 0;
  const double token =
      static_cast<double>(options.num_blocks) * block + around + rounded + 2 * normalized;
  const double floats = static_cast<double>(num_tokens) * token +
                        static_cast<double>(num_negatives) * (dim + normalized);
  constexpr double kSlack = 1.25;  // Buffer::resize_discard
  return bytes_of(floats * kSlack * kFloatBytes);
}

std::int64_t gpu_workspace_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                                 std::int64_t num_negatives) {
  // Tiles of 64 rows, of which few are summed in chunks: up to 528 more than there are tiles.
  constexpr double kTile = 64, kMoreChunks = 528;
  const double rows = static_cast<double>(num_tokens) + static_cast<double>(num_negatives);
  const double sums = (rows + 2 * kMoreChunks * kTile) * static_cast<double>(options.dim);
  // Rounded to whole tiles whose columns are a power of 2.
  const double padded =
      (rows + 2 * kTile) * 2 * static_cast<double>(std::max<std::int64_t>(options.dim, 16));
  const double rounded = options.precision == Precision::kFp32   ? 0
                         : options.precision == Precision::kBf16 ? padded / 2
                                                                 : padded;
  return bytes_of((sums + rounded) * sizeof(float));
}

}  // namespace serrate
