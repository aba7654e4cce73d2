#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace serrate::reference {

/// Whether query i of sequence s sees key j, i and j counted from the sequence's first.
using Visible = std::function<bool(std::int64_t s, std::int64_t i, std::int64_t j)>;

inline bool causal(std::int64_t /*s*/, std::int64_t i, std::int64_t j) {
  return j <= i;
}

/// Attention by its definition, with a matrix of scores for every sequence and head. Arrays are
/// dense [num_tokens, num_heads or num_key_heads, head_dim].
struct Attention {
  std::vector<double> q, k, v;
  std::vector<std::int64_t> query_offsets, key_offsets;
  std::int64_t num_heads = 1;
  std::int64_t head_dim = 1;
  double scale = 1;
  Visible visible = causal;
  std::int64_t num_key_heads = num_heads;  // divides num_heads
  // 0: softmax. Else x / (1 + e^-x) / silu_divisor.
  double silu_divisor = 0;
  // Added to the score of pair_of(sequence, head, query, key); empty: nothing is.
  std::vector<double> bias = {};
  // What weights are multiplied by, likewise.
  std::vector<double> kept = {};

  std::int64_t longest_queries() const;
  std::int64_t longest_keys() const;
  std::size_t pair_of(std::int64_t s, std::int64_t head, std::int64_t i, std::int64_t j) const;
  std::size_t num_pairs() const;
};

struct AttentionOutput {
  std::vector<double> out;  // 0 outside the offsets
  std::vector<double> lse;  // [num_heads, num_query_tokens]
};

struct AttentionGradients {
  std::vector<double> d_q, d_k, d_v;  // 0 outside the offsets
  std::vector<double> d_bias;         // of every pair
};

AttentionOutput attention_forward(const Attention& args);
AttentionGradients attention_backward(const Attention& args, const std::vector<double>& d_out);

}  // namespace serrate::reference
