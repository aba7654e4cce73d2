#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "serrate/kernels/dropout.h"
#include "serrate/kernels/feed_forward.h"
#include "serrate/kernels/layer_norm.h"
#include "serrate/sequence_model_options.h"
#include "src/model/activation_rows.h"
#include "src/model/dense_parameters.h"

namespace serrate {

/// What the encoder needs to know of a batch besides its embeddings; device memory.
struct TokenBatch {
  DeviceSpan<const std::int64_t> sequence_offsets;  // [batch_size + 1] in tokens
  DeviceSpan<const std::int64_t> positions;         // [num_tokens], 0 for a sequence's first
  DeviceSpan<const std::int64_t> token_ids;         // [num_tokens], unique over all ranks
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(positions.size()); }
};

enum class EncoderMode { kTrain, kEvaluate };

/// The transformer over jagged sequences: tokens [num_tokens, dim] in, hidden states of the same
/// shape out. Keeps what the backward needs; one batch at a time. In bf16 what products read and
/// make is stored in bfloat16: weights, norms' outputs, attention's rows, the feed-forward's inside
/// and gradients of all of them. Tokens, residuals, their gradient, hidden states and statistics
/// are float32.
class SequenceEncoder {
 public:
  SequenceEncoder(const SequenceModelOptions& options, std::uint64_t seed, const Stream& stream);

  DenseParameters& parameters() { return parameters_; }
  /// Bytes of activations held.
  std::int64_t activation_bytes() const;

  /// `features`: pooled embeddings [num_tokens, dim], the item first. `step` keys the dropout.
  DeviceMatrix<const float> forward(std::span<const DeviceMatrix<const float>> features,
                                    const TokenBatch& tokens, std::int64_t step, EncoderMode mode,
                                    const Stream& stream);
  /// The backward of the last forward. Overwrites d_hidden, adds dense gradients to parameters().
  void backward(DeviceMatrix<float> d_hidden, std::span<const DeviceMatrix<float>> d_features,
                const TokenBatch& tokens, const Stream& stream);

 private:
  /// The indices of one block's parameters, and its activations.
  struct Block {
    std::int64_t norm1_gamma, norm1_beta, qkv, qkv_bias, out, out_bias;
    std::int64_t norm2_gamma, norm2_beta, up, up_bias, down, down_bias;
    ActivationRows normed1;                         // [n, dim]
    ActivationRows qkv_rows;                        // [n, 3 * dim]
    ActivationRows attended;                        // [n, dim]
    ActivationRows normed2;                         // [n, dim]
    Buffer<std::byte> kept;                         // of the feed-forward
    ActivationRows activated;                       // [n, feed_forward_dim]
    Buffer<float> mean1, rstd1, mean2, rstd2, lse;  // [n], and [heads, n]
    Buffer<float> middle, result;  // [n, dim]: after the residual of attention, of feed-forward
  };

  std::vector<ParameterSlice> layout();
  LayerNormSum block_forward(Block& block, const LayerNormSum& x, const TokenBatch& tokens,
                             std::uint32_t site, const Stream& stream);
  /// What goes into block b, or of the last b into the final norm; and the gradient of the bias of
  /// the branch that it was summed with, if that is a block's.
  DeviceMatrix<const float> input_of_block(std::size_t b) const;
  DeviceSpan<float> d_bias_before(std::size_t b);
  void block_backward(std::size_t b, DeviceMatrix<float> d_x, const TokenBatch& tokens,
                      const Stream& stream);

  AttentionForward attention(const TokenBatch& tokens) const;
  AttentionForward attention(Block& block, const TokenBatch& tokens) const;
  FeedForward feed_forward_of(Block& block);
  OutputMatrix resize(ActivationRows& rows, std::int64_t num_rows, std::int64_t cols,
                      const Stream& stream) const;
  DropoutKey dropout_key(std::uint32_t site, const TokenBatch& tokens) const;

  SequenceModelOptions options_;
  std::uint64_t seed_;
  std::int64_t position_, final_gamma_, final_beta_;
  std::vector<Block> blocks_;
  DenseParameters parameters_;
  // The step under way.
  std::int64_t step_ = 0;
  float dropout_rate_ = 0;
  AttentionPlan attention_plan_;
  Buffer<float> embedded_, hidden_, final_mean_, final_rstd_;
  // Gradients on their way back: of a dim-wide, a 3 * dim-wide and a feed-forward-wide activation.
  ActivationRows d_rows_, d_qkv_, d_up_;
  ActivationRows mixed_;  // [n, dim]: a projection before dropout
};

}  // namespace serrate
