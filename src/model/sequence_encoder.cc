#include "src/model/sequence_encoder.h"

#include <cmath>

#include "serrate/kernels/layer_norm.h"
#include "serrate/kernels/linear.h"
#include "serrate/kernels/token_embedding.h"
#include "src/core/profiler_range.h"

namespace serrate {
namespace {

DeviceMatrix<float> rows_of(Buffer<float>& buffer, std::int64_t rows, std::int64_t cols,
                            const Stream& stream) {
  return {buffer.resize_discard(rows * cols, stream), rows, cols};
}

DeviceMatrix<const float> rows_of(const Buffer<float>& buffer, std::int64_t cols) {
  return buffer.matrix(buffer.size() / cols, cols);
}

/// As heads of so many columns, one behind the other.
template <typename Void>
AnyHeads<Void> heads_of(const AnyMatrix<Void>& rows, std::int64_t head_dim) {
  AnyHeads<Void> heads;
  heads.device_data = rows.device_data();
  heads.type = rows.type;
  heads.token_stride = rows.stride;
  heads.head_stride = head_dim;
  return heads;
}

/// q, k and v are the three dim-wide column blocks of the packed projection.
struct PackedHeads {
  OutputHeads q, k, v;
  PackedHeads(const OutputMatrix& qkv, std::int64_t head_dim)
      : q(heads_of(qkv.columns(0, qkv.cols / 3), head_dim)),
        k(heads_of(qkv.columns(qkv.cols / 3, qkv.cols / 3 * 2), head_dim)),
        v(heads_of(qkv.columns(qkv.cols / 3 * 2, qkv.cols), head_dim)) {}
};

}  // namespace

SequenceEncoder::SequenceEncoder(const SequenceModelOptions& options, std::uint64_t seed,
                                 const Stream& stream)
    : options_(options),
      seed_(seed),
      blocks_(options.num_blocks),
      parameters_(layout(), options.precision, seed, stream) {
  check(options_.dim % options_.num_heads == 0, "dim has to be a multiple of num_heads");
}

// Linear layers start uniform in +-1/sqrt(in) with zero bias, positions in +-0.02, norms at one.
std::vector<ParameterSlice> SequenceEncoder::layout() {
  const std::int64_t dim = options_.dim;
  if (options_.feed_forward_dim == 0) options_.feed_forward_dim = 4 * dim;
  const std::int64_t wide = options_.feed_forward_dim;
  std::vector<ParameterSlice> slices;
  const auto add = [&](ParameterSlice slice) {
    slices.push_back(std::move(slice));
    return static_cast<std::int64_t>(slices.size()) - 1;
  };
  const auto matrix = [&](std::string name, std::int64_t rows, std::int64_t cols) {
    return add({.name = std::move(name),
                .rows = rows,
                .cols = cols,
                .init = Init::kUniform,
                .scale = 1 / std::sqrt(static_cast<float>(cols))});
  };
  const auto vector = [&](std::string name, std::int64_t size, Init init) {
    return add({.name = std::move(name), .rows = 1, .cols = size, .init = init, .decays = false});
  };

  position_ = add({.name = "position",
                   .rows = options_.max_length,
                   .cols = dim,
                   .init = Init::kUniform,
                   .scale = 0.02f,
                   .decays = false});
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    Block& block = blocks_[b];
    const std::string name = "block" + std::to_string(b) + ".";
    block.norm1_gamma = vector(name + "norm1.gamma", dim, Init::kOne);
    block.norm1_beta = vector(name + "norm1.beta", dim, Init::kZero);
    block.qkv = matrix(name + "qkv.weight", 3 * dim, dim);
    block.qkv_bias = vector(name + "qkv.bias", 3 * dim, Init::kZero);
    block.out = matrix(name + "out.weight", dim, dim);
    block.out_bias = vector(name + "out.bias", dim, Init::kZero);
    block.norm2_gamma = vector(name + "norm2.gamma", dim, Init::kOne);
    block.norm2_beta = vector(name + "norm2.beta", dim, Init::kZero);
    block.up = matrix(name + "up.weight", wide, dim);
    block.up_bias = vector(name + "up.bias", wide, Init::kZero);
    block.down = matrix(name + "down.weight", dim, wide);
    block.down_bias = vector(name + "down.bias", dim, Init::kZero);
  }
  final_gamma_ = vector("final_norm.gamma", dim, Init::kOne);
  final_beta_ = vector("final_norm.beta", dim, Init::kZero);
  return slices;
}

// ---- the whole encoder ----------------------------------------------------------------------

DeviceMatrix<const float> SequenceEncoder::forward(
    std::span<const DeviceMatrix<const float>> features, const TokenBatch& tokens,
    std::int64_t step, EncoderMode mode, const Stream& stream) {
  const ProfilerRange range("encoder");
  const std::int64_t n = tokens.num_tokens(), dim = options_.dim;
  step_ = step;
  dropout_rate_ = mode == EncoderMode::kTrain ? options_.dropout : 0;
  attention_plan_ = plan_attention(attention(tokens), stream);
  parameters_.round_values(stream);

  const DeviceMatrix<float> embedded = rows_of(embedded_, n, dim, stream);
  LayerNormSum x{.key = dropout_key(0, tokens),
                 .branch = embedded,
                 .residual = {},
                 .sum = embedded,
                 .tokens = TokenEmbeddingForward{.features = features,
                                                 .position = parameters_.value(position_),
                                                 .positions = tokens.positions,
                                                 .scale = std::sqrt(static_cast<float>(dim)),
                                                 .x = embedded}};
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    x = block_forward(blocks_[b], x, tokens, static_cast<std::uint32_t>(2 * b + 1), stream);
  }

  const DeviceMatrix<float> hidden = rows_of(hidden_, n, dim, stream);
  layer_norm_forward({.x = x.sum,
                      .gamma = parameters_.value(final_gamma_).flat(),
                      .beta = parameters_.value(final_beta_).flat(),
                      .y = hidden,
                      .mean = final_mean_.resize_discard(n, stream),
                      .rstd = final_rstd_.resize_discard(n, stream),
                      .sum = x},
                     stream);
  return hidden;
}

void SequenceEncoder::backward(DeviceMatrix<float> d_hidden,
                               std::span<const DeviceMatrix<float>> d_features,
                               const TokenBatch& tokens, const Stream& stream) {
  const ProfilerRange range("encoder backward");
  const std::int64_t dim = options_.dim;
  const DeviceMatrix<float> d_x = d_hidden;  // each layer's d_y becomes its d_x in place
  const OutputMatrix d_rows = resize(d_rows_, d_x.rows, dim, stream);
  const auto last_site = static_cast<std::uint32_t>(2 * blocks_.size());
  layer_norm_backward({.x = input_of_block(blocks_.size()),
                       .d_y = d_hidden,
                       .gamma = parameters_.value(final_gamma_).flat(),
                       .mean = final_mean_.span(),
                       .rstd = final_rstd_.span(),
                       .d_x = d_x,
                       .d_gamma = parameters_.gradient(final_gamma_).flat(),
                       .d_beta = parameters_.gradient(final_beta_).flat(),
                       .key = dropout_key(last_site, tokens),
                       .d_branch = blocks_.empty() ? OutputMatrix(d_x) : d_rows,
                       .d_bias = d_bias_before(blocks_.size())},
                      stream);
  for (std::size_t b = blocks_.size(); b-- > 0;) block_backward(b, d_x, tokens, stream);

  token_embedding_backward({.d_x = d_x,
                            .positions = tokens.positions,
                            .scale = std::sqrt(static_cast<float>(dim)),
                            .d_features = d_features,
                            .d_position = parameters_.gradient(position_)},
                           stream);
}

// ---- one block: x + attention(norm(x)), then + feed-forward(norm(.)) --------------------------

// Each sum is made by the norm of what comes next.
LayerNormSum SequenceEncoder::block_forward(Block& block, const LayerNormSum& x,
                                            const TokenBatch& tokens, std::uint32_t site,
                                            const Stream& stream) {
  const std::int64_t n = x.sum.rows, dim = options_.dim;
  const auto vector = [&](std::int64_t slice) { return parameters_.value(slice).flat(); };
  const auto linear = [&](const InputMatrix& input, std::int64_t weight, std::int64_t bias,
                          const OutputMatrix& y) {
    linear_forward({.x = input,
                    .weight = parameters_.factor(weight),
                    .bias = parameters_.factor(bias),
                    .y = y,
                    .precision = options_.precision},
                   stream);
  };

  const auto normed1 = resize(block.normed1, n, dim, stream);
  layer_norm_forward({.x = x.sum,
                      .gamma = vector(block.norm1_gamma),
                      .beta = vector(block.norm1_beta),
                      .y = normed1,
                      .mean = block.mean1.resize_discard(n, stream),
                      .rstd = block.rstd1.resize_discard(n, stream),
                      .sum = x},
                     stream);
  linear(normed1, block.qkv, block.qkv_bias, resize(block.qkv_rows, n, 3 * dim, stream));
  const auto attended = resize(block.attended, n, dim, stream);
  block.lse.resize_discard(options_.num_heads * n, stream);
  jagged_attention_forward(attention(block, tokens), stream);
  const auto mixed = resize(mixed_, n, dim, stream);
  linear(attended, block.out, block.out_bias, mixed);
  const LayerNormSum middle{.key = dropout_key(site, tokens),
                            .branch = mixed,
                            .residual = x.sum,
                            .sum = rows_of(block.middle, n, dim, stream)};

  const auto normed2 = resize(block.normed2, n, dim, stream);
  layer_norm_forward({.x = middle.sum,
                      .gamma = vector(block.norm2_gamma),
                      .beta = vector(block.norm2_beta),
                      .y = normed2,
                      .mean = block.mean2.resize_discard(n, stream),
                      .rstd = block.rstd2.resize_discard(n, stream),
                      .sum = middle},
                     stream);
  const auto activated = resize(block.activated, n, options_.feed_forward_dim, stream);
  block.kept.resize_discard(feed_forward_kept_bytes(options_.activation, n, activated.cols,
                                                    activated.type, stream.device()),
                            stream);
  feed_forward(feed_forward_of(block), stream);
  return {.key = dropout_key(site + 1, tokens),
          .branch = mixed,
          .residual = middle.sum,
          .sum = rows_of(block.result, n, dim, stream)};
}

DeviceMatrix<const float> SequenceEncoder::input_of_block(std::size_t b) const {
  return rows_of(b == 0 ? embedded_ : blocks_[b - 1].result, options_.dim);
}

DeviceSpan<float> SequenceEncoder::d_bias_before(std::size_t b) {
  if (b == 0) return {};
  return parameters_.gradient(blocks_[b - 1].down_bias).flat();
}

// d_rows_ has the gradient of the last branch, as d_x passed through its dropout; then it becomes
// that of the branch before the block, or d_x that of the tokens. The norm that makes the gradient
// of a branch also sums that of its bias.
void SequenceEncoder::block_backward(std::size_t b, DeviceMatrix<float> d_x,
                                     const TokenBatch& tokens, const Stream& stream) {
  Block& block = blocks_[b];
  const auto site = static_cast<std::uint32_t>(2 * b + 1);
  const std::int64_t n = d_x.rows, dim = options_.dim, wide = options_.feed_forward_dim;
  const auto linear = [&](const InputMatrix& input, const InputMatrix& d_y,
                          const OutputMatrix& d_input, std::int64_t weight,
                          DeviceSpan<float> d_bias) {
    linear_backward({.x = input,
                     .weight = parameters_.factor(weight),
                     .d_y = d_y,
                     .d_x = d_input,
                     .d_weight = parameters_.gradient(weight),
                     .d_bias = d_bias,
                     .precision = options_.precision},
                    stream);
  };
  const auto norm = [&](DeviceMatrix<const float> input, const InputMatrix& d_y, std::int64_t gamma,
                        std::int64_t beta, const Buffer<float>& mean, const Buffer<float>& rstd,
                        std::uint32_t site_before, DeviceSpan<float> d_bias) {
    layer_norm_backward({.x = input,
                         .d_y = d_y,
                         .gamma = parameters_.value(gamma).flat(),
                         .mean = mean.span(),
                         .rstd = rstd.span(),
                         .d_x = d_x,
                         .d_gamma = parameters_.gradient(gamma).flat(),
                         .d_beta = parameters_.gradient(beta).flat(),
                         .write = LayerNormBackward::Write::kAccumulate,
                         .key = dropout_key(site_before, tokens),
                         .d_branch = site_before == 0 ? OutputMatrix(d_x) : d_rows_.rows(),
                         .d_bias = d_bias},
                        stream);
  };

  const auto d_bias_of = [&](std::int64_t slice) { return parameters_.gradient(slice).flat(); };

  const OutputMatrix d_rows = d_rows_.rows();
  feed_forward_backward({.forward = feed_forward_of(block),
                         .d_y = d_rows,
                         .d_activated = resize(d_up_, n, wide, stream),
                         .d_x = d_rows,
                         .d_up = parameters_.gradient(block.up),
                         .d_down = parameters_.gradient(block.down),
                         .d_up_bias = d_bias_of(block.up_bias)},
                        stream);
  norm(rows_of(block.middle, dim), d_rows, block.norm2_gamma, block.norm2_beta, block.mean2,
       block.rstd2, site, d_bias_of(block.out_bias));

  const auto d_attended = resize(mixed_, n, dim, stream);
  const auto d_qkv = resize(d_qkv_, n, 3 * dim, stream);
  linear(block.attended.rows(), d_rows, d_attended, block.out, {});
  const std::int64_t head_dim = dim / options_.num_heads;
  const PackedHeads gradients(d_qkv, head_dim);
  jagged_attention_backward({.forward = attention(block, tokens),
                             .d_out = heads_of(d_attended, head_dim),
                             .d_q = gradients.q,
                             .d_k = gradients.k,
                             .d_v = gradients.v},
                            stream);
  linear(block.normed1.rows(), d_qkv, d_rows, block.qkv, d_bias_of(block.qkv_bias));
  norm(input_of_block(b), d_rows, block.norm1_gamma, block.norm1_beta, block.mean1, block.rstd1,
       site - 1, d_bias_before(b));
}

// What all blocks have in common.
AttentionForward SequenceEncoder::attention(const TokenBatch& tokens) const {
  const std::int64_t head_dim = options_.dim / options_.num_heads;
  AttentionForward args;
  args.query_offsets = args.key_offsets = tokens.sequence_offsets;
  args.num_heads = options_.num_heads, args.head_dim = head_dim;
  args.precision = options_.precision;
  args.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  args.mask = kCausalMask;
  return args;
}

AttentionForward SequenceEncoder::attention(Block& block, const TokenBatch& tokens) const {
  AttentionForward args = attention(tokens);
  const PackedHeads heads(block.qkv_rows.rows(), args.head_dim);
  args.q = heads.q;
  args.k = heads.k;
  args.v = heads.v;
  args.out = heads_of(block.attended.rows(), args.head_dim);
  args.lse = block.lse.span();
  args.plan = &attention_plan_;
  return args;
}

FeedForward SequenceEncoder::feed_forward_of(Block& block) {
  return {.x = block.normed2.rows(),
          .up = parameters_.factor(block.up),
          .up_bias = parameters_.factor(block.up_bias),
          .down = parameters_.factor(block.down),
          .down_bias = parameters_.factor(block.down_bias),
          .activation = options_.activation,
          .precision = options_.precision,
          .kept = block.kept.span(),
          .activated = block.activated.rows(),
          .y = mixed_.rows()};
}

OutputMatrix SequenceEncoder::resize(ActivationRows& rows, std::int64_t num_rows, std::int64_t cols,
                                     const Stream& stream) const {
  const bool is_bf16 = options_.precision == Precision::kBf16;
  return rows.resize_discard(num_rows, cols, is_bf16 ? DataType::kBFloat16 : DataType::kFloat32,
                             stream);
}

DropoutKey SequenceEncoder::dropout_key(std::uint32_t site, const TokenBatch& tokens) const {
  return {.rate = dropout_rate_,
          .seed = seed_,
          .step = step_,
          .site = site,
          .token_ids = tokens.token_ids};
}

std::int64_t SequenceEncoder::activation_bytes() const {
  std::int64_t bytes = parameters_.rounded_bytes();
  const auto count = [&](const auto&... buffers) { bytes += (buffers.bytes() + ...); };
  for (const Block& b : blocks_) {
    count(b.normed1, b.qkv_rows, b.attended, b.normed2, b.kept, b.activated, b.mean1, b.rstd1,
          b.mean2, b.rstd2, b.lse, b.middle, b.result);
  }
  count(embedded_, hidden_, final_mean_, final_rstd_, d_rows_, d_qkv_, d_up_, mixed_);
  return bytes;
}

}  // namespace serrate
