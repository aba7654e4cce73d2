#include "src/model/model_bytes.h"

namespace serrate {
namespace {

constexpr std::int64_t kFloatBytes = sizeof(float);

std::int64_t feed_forward(const SequenceModelOptions& options) {
  return options.feed_forward_dim > 0 ? options.feed_forward_dim : 4 * options.dim;
}

}  // namespace

std::int64_t parameter_bytes(const SequenceModelOptions& options) {
  const std::int64_t dim = options.dim, wide = feed_forward(options);
  const std::int64_t attention = 3 * dim * (dim + 1) + dim * (dim + 1);  // qkv, out
  const std::int64_t mlp = wide * (dim + 1) + dim * (wide + 1);          // up, down
  const std::int64_t norm = 2 * dim;
  const std::int64_t parameters =
      options.max_length * dim + options.num_blocks * (attention + mlp + 2 * norm) + norm;
  return parameters * kFloatBytes;
}

std::int64_t activation_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                              std::int64_t num_negatives) {
  const std::int64_t dim = options.dim, wide = feed_forward(options);
  // Two norms' outputs and statistics, q, k and v, the attention's output and log-sum-exp, both
  // residuals, and the feed-forward's inside before and after the activation.
  const std::int64_t block = 8 * dim + 2 * wide + 4 + options.num_heads;
  // Around the blocks: tokens, hidden states, statistics; gradients of three widths, a projection
  // before dropout and d_hidden.
  const std::int64_t around = 2 * dim + 2 + (dim + 3 * dim + wide) + dim + dim;
  const std::int64_t normalized = options.l2_normalize ? dim + 1 : 0;
  const std::int64_t floats = num_tokens * (options.num_blocks * block + around + 2 * normalized) +
                              num_negatives * (dim + normalized);
  return (floats + floats / 4) * kFloatBytes;  // Buffer::resize_discard
}

}  // namespace serrate
