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

/// Softmax attention by its definition, with a matrix of scores for every sequence and head. All
/// arrays are dense [num_tokens, num_heads, head_dim].
struct Attention {
  std::vector<double> q, k, v;
  std::vector<std::int64_t> query_offsets, key_offsets;
  std::int64_t num_heads = 1;
  std::int64_t head_dim = 1;
  double scale = 1;
  Visible visible = causal;
};

struct AttentionOutput {
  std::vector<double> out;  // 0 outside the offsets
  std::vector<double> lse;  // [num_heads, num_query_tokens]
};

struct AttentionGradients {
  std::vector<double> d_q, d_k, d_v;  // 0 outside the offsets
};

AttentionOutput attention_forward(const Attention& args);
AttentionGradients attention_backward(const Attention& args, const std::vector<double>& d_out);

}  // namespace serrate::reference
