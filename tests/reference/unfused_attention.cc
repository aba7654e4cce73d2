#include "tests/reference/unfused_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"

namespace serrate::reference {
namespace {

using Floats = std::vector<float>;

constexpr float kFloatInfinity = std::numeric_limits<float>::infinity();

float dot(const float* a, const float* b, std::int64_t n) {
  float sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// y += a x
void add(float a, const float* x, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

struct Unfused {
  const Attention& args;
  const DataType stored;
  Floats q, k, v, d_out, out, lse, d_q, d_k, d_v;
  std::vector<double> d_bias;

  float store(float x) const { return reference::store(x, stored); }

  // The scores of query i of sequence s.
  Floats scores(std::int64_t s, std::int64_t head, std::int64_t i, const float* q_row,
                const float* k_rows, std::int64_t k_stride) const {
    Floats result(args.key_offsets[s + 1] - args.key_offsets[s], -kFloatInfinity);
    for (std::int64_t j = 0; j < std::ssize(result); ++j) {
      if (!args.visible(s, i, j)) continue;
      const float product = store(dot(q_row, k_rows + j * k_stride, args.head_dim));
      result[j] = store(static_cast<float>(args.scale) * product);
      if (args.bias.empty()) continue;
      result[j] = store(result[j] + static_cast<float>(args.bias[args.pair_of(s, head, i, j)]));
    }
    return result;
  }

  // Scores become weights; the derivatives of pointwise ones follow.
  Floats activate(Floats& x, float& row_lse) const {
    Floats derivatives;
    if (args.silu_divisor != 0) {
      const auto divisor = static_cast<float>(args.silu_divisor);
      for (float& score : x) {
        const float sigmoid = 1 / (1 + std::exp(-score));
        const bool is_hidden = score == -kFloatInfinity;
        derivatives.push_back(is_hidden ? 0
                                        : store(sigmoid * (1 + score * (1 - sigmoid)) / divisor));
        score = is_hidden ? 0 : store(store(score * sigmoid) / divisor);
      }
      return derivatives;
    }
    const float max = x.empty() ? -kFloatInfinity : *std::ranges::max_element(x);
    float sum = 0;
    for (float& score : x) sum += score = max == -kFloatInfinity ? 0 : std::exp(score - max);
    for (float& weight : x) weight = sum == 0 ? 0 : store(weight / sum);
    row_lse = sum == 0 ? -kFloatInfinity : max + std::log(sum);
    return derivatives;
  }

  void query(std::int64_t s, std::int64_t head, std::int64_t i) {
    const std::int64_t dim = args.head_dim, k_stride = args.num_key_heads * dim;
    const std::int64_t key_head = head / (args.num_heads / args.num_key_heads);
    const std::int64_t row = ((args.query_offsets[s] + i) * args.num_heads + head) * dim;
    const std::int64_t keys = args.key_offsets[s] * k_stride + key_head * dim;
    Floats weights = scores(s, head, i, &q[row], &k[keys], k_stride);
    const Floats derivatives = activate(weights, lse[row / dim]);

    Floats d_weights(weights.size()), kept(weights.size(), 1);
    float mean = 0;
    for (std::int64_t j = 0; j < std::ssize(weights); ++j) {
      if (!args.kept.empty()) kept[j] = static_cast<float>(args.kept[args.pair_of(s, head, i, j)]);
      const float* v_row = &v[keys + j * k_stride];
      const float weight = store(weights[j] * kept[j]);
      add(weight, v_row, dim, &out[row]);
      add(weight, &d_out[row], dim, &d_v[keys + j * k_stride]);
      d_weights[j] = store(store(dot(&d_out[row], v_row, dim)) * kept[j]);
      mean += weights[j] * d_weights[j];
    }
    for (std::int64_t j = 0; j < std::ssize(weights); ++j) {
      const float d_score = args.silu_divisor == 0 ? store(weights[j] * (d_weights[j] - mean))
                                                   : store(derivatives[j] * d_weights[j]);
      if (!args.bias.empty()) d_bias[args.pair_of(s, head, i, j)] = d_score;
      const float d_product = store(static_cast<float>(args.scale) * d_score);
      add(d_product, &k[keys + j * k_stride], dim, &d_q[row]);
      add(d_product, &q[row], dim, &d_k[keys + j * k_stride]);
    }
  }

  std::vector<double> result(const Floats& values) const {
    std::vector<double> result;
    for (const float x : values) result.push_back(store(x));
    return result;
  }
};

Floats as_floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

float store(float x, DataType stored) {
  return stored == DataType::kFloat32   ? x
         : stored == DataType::kFloat16 ? static_cast<float>(Float16(x))
                                        : static_cast<float>(BFloat16(x));
}

UnfusedAttention unfused_attention(const Attention& args, const std::vector<double>& d_out,
                                   DataType stored) {
  const std::int64_t rows = std::ssize(args.q) / args.head_dim;
  Unfused call{args,
               stored,
               as_floats(args.q),
               as_floats(args.k),
               as_floats(args.v),
               as_floats(d_out),
               Floats(args.q.size()),
               Floats(rows),
               Floats(args.q.size()),
               Floats(args.k.size()),
               Floats(args.k.size()),
               std::vector<double>(args.bias.empty() ? 0 : args.num_pairs())};
  for (std::int64_t s = 0; s + 1 < std::ssize(args.query_offsets); ++s) {
    for (std::int64_t head = 0; head < args.num_heads; ++head) {
      const std::int64_t queries = args.query_offsets[s + 1] - args.query_offsets[s];
      for (std::int64_t i = 0; i < queries; ++i) call.query(s, head, i);
    }
  }
  std::vector<double> lse(rows);  // [num_heads, num_query_tokens]
  for (std::int64_t row = 0; row < rows; ++row) {
    lse[row % args.num_heads * (rows / args.num_heads) + row / args.num_heads] = call.lse[row];
  }
  return {{call.result(call.out), lse},
          {call.result(call.d_q), call.result(call.d_k), call.result(call.d_v), call.d_bias}};
}

}  // namespace serrate::reference
