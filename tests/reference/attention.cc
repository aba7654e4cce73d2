#include "tests/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace serrate::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::int64_t longest(const std::vector<std::int64_t>& offsets) {
  std::int64_t result = 0;
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    result = std::max(result, offsets[s + 1] - offsets[s]);
  }
  return result;
}

// A query of one sequence in one head: what each key weighs, and the derivative of that by its own
// score, where the weights are pointwise.
struct Query {
  std::int64_t sequence, head, key_head, place, token, first_key;
  std::vector<double> weights, derivatives, kept;
  double lse;
};

void softmax(const std::vector<double>& scores, Query& query) {
  const double max = scores.empty() ? -kInfinity : *std::ranges::max_element(scores);
  double sum = 0;
  for (const double x : scores) {
    query.weights.push_back(max == -kInfinity ? 0 : std::exp(x - max));
    sum += query.weights.back();
  }
  for (double& x : query.weights) x = sum == 0 ? 0 : x / sum;
  query.lse = sum == 0 ? -kInfinity : max + std::log(sum);
}

void silu(const std::vector<double>& scores, double divisor, Query& query) {
  for (const double x : scores) {
    const double sigmoid = 1 / (1 + std::exp(-x));
    query.weights.push_back(x == -kInfinity ? 0 : x * sigmoid / divisor);
    query.derivatives.push_back(x == -kInfinity ? 0 : sigmoid * (1 + x * (1 - sigmoid)) / divisor);
  }
}

// Calls f(Query) for every query of every sequence and head.
template <typename F>
void for_each_query(const Attention& args, F&& f) {
  const std::int64_t heads = args.num_heads, dim = args.head_dim;
  for (std::int64_t s = 0; s + 1 < std::ssize(args.query_offsets); ++s) {
    const std::int64_t first_query = args.query_offsets[s], first_key = args.key_offsets[s];
    const std::int64_t keys = args.key_offsets[s + 1] - first_key;
    for (std::int64_t head = 0; head < heads; ++head) {
      const std::int64_t key_head = head / (heads / args.num_key_heads);
      for (std::int64_t i = first_query; i < args.query_offsets[s + 1]; ++i) {
        std::vector<double> scores(keys, -kInfinity);
        for (std::int64_t j = 0; j < keys; ++j) {
          if (!args.visible(s, i - first_query, j)) continue;
          double score = 0;
          for (std::int64_t c = 0; c < dim; ++c) {
            score += args.q[(i * heads + head) * dim + c] *
                     args.k[((first_key + j) * args.num_key_heads + key_head) * dim + c];
          }
          scores[j] = args.scale * score;
          if (!args.bias.empty()) scores[j] += args.bias[args.pair_of(s, head, i - first_query, j)];
        }
        Query query{s, head, key_head, i - first_query, i, first_key, {}, {}, {}, 0};
        query.kept.resize(keys, 1.0);
        for (std::int64_t j = 0; j < keys && !args.kept.empty(); ++j) {
          query.kept[j] = args.kept[args.pair_of(s, head, query.place, j)];
        }
        if (args.silu_divisor == 0) {
          softmax(scores, query);
        } else {
          silu(scores, args.silu_divisor, query);
        }
        f(query);
      }
    }
  }
}

}  // namespace

std::int64_t Attention::longest_queries() const {
  return longest(query_offsets);
}
std::int64_t Attention::longest_keys() const {
  return longest(key_offsets);
}

std::size_t Attention::pair_of(std::int64_t s, std::int64_t head, std::int64_t i,
                               std::int64_t j) const {
  return static_cast<std::size_t>(
      ((s * num_heads + head) * longest_queries() + i) * longest_keys() + j);
}

std::size_t Attention::num_pairs() const {
  return pair_of(std::ssize(query_offsets) - 1, 0, 0, 0);
}

AttentionOutput attention_forward(const Attention& args) {
  const std::int64_t heads = args.num_heads, dim = args.head_dim;
  const std::int64_t tokens = std::ssize(args.q) / (heads * dim);
  AttentionOutput result{std::vector<double>(args.q.size(), 0.0),
                         std::vector<double>(heads * tokens, 0.0)};
  for_each_query(args, [&](const Query& query) {
    result.lse[query.head * tokens + query.token] = query.lse;
    for (std::int64_t j = 0; j < std::ssize(query.weights); ++j) {
      const std::int64_t key = ((query.first_key + j) * args.num_key_heads + query.key_head) * dim;
      for (std::int64_t c = 0; c < dim; ++c) {
        result.out[(query.token * heads + query.head) * dim + c] +=
            query.weights[j] * query.kept[j] * args.v[key + c];
      }
    }
  });
  return result;
}

AttentionGradients attention_backward(const Attention& args, const std::vector<double>& d_out) {
  const std::int64_t heads = args.num_heads, dim = args.head_dim;
  AttentionGradients result{std::vector<double>(args.q.size(), 0.0),
                            std::vector<double>(args.k.size(), 0.0),
                            std::vector<double>(args.k.size(), 0.0),
                            std::vector<double>(args.bias.empty() ? 0 : args.num_pairs(), 0.0)};
  for_each_query(args, [&](const Query& query) {
    const std::vector<double>& p = query.weights;
    const std::int64_t row = (query.token * heads + query.head) * dim;
    std::vector<double> d_p(p.size(), 0.0);
    double mean = 0;
    for (std::int64_t j = 0; j < std::ssize(p); ++j) {
      const std::int64_t key = ((query.first_key + j) * args.num_key_heads + query.key_head) * dim;
      for (std::int64_t c = 0; c < dim; ++c) {
        d_p[j] += d_out[row + c] * args.v[key + c];
        result.d_v[key + c] += p[j] * query.kept[j] * d_out[row + c];
      }
      d_p[j] *= query.kept[j];
      mean += p[j] * d_p[j];
    }
    for (std::int64_t j = 0; j < std::ssize(p); ++j) {
      const std::int64_t key = ((query.first_key + j) * args.num_key_heads + query.key_head) * dim;
      const double d_score =
          args.silu_divisor == 0 ? p[j] * (d_p[j] - mean) : query.derivatives[j] * d_p[j];
      if (!args.bias.empty()) {
        result.d_bias[args.pair_of(query.sequence, query.head, query.place, j)] += d_score;
      }
      for (std::int64_t c = 0; c < dim; ++c) {
        result.d_q[row + c] += args.scale * d_score * args.k[key + c];
        result.d_k[key + c] += args.scale * d_score * args.q[row + c];
      }
    }
  });
  return result;
}

}  // namespace serrate::reference
