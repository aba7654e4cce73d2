#include "tests/reference/attention.h"

#include <cmath>
#include <limits>

namespace serrate::reference {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Calls f(head, query token, first key token, probabilities of the keys, log-sum-exp).
template <typename F>
void for_each_query(const Attention& args, F&& f) {
  const std::int64_t heads = args.num_heads, dim = args.head_dim;
  for (std::size_t s = 0; s + 1 < args.query_offsets.size(); ++s) {
    const std::int64_t first_query = args.query_offsets[s], first_key = args.key_offsets[s];
    const std::int64_t keys = args.key_offsets[s + 1] - first_key;
    for (std::int64_t head = 0; head < heads; ++head) {
      for (std::int64_t i = first_query; i < args.query_offsets[s + 1]; ++i) {
        std::vector<double> p(keys, -kInfinity);
        double max = -kInfinity;
        for (std::int64_t j = 0; j < keys; ++j) {
          if (!args.visible(static_cast<std::int64_t>(s), i - first_query, j)) continue;
          double score = 0;
          for (std::int64_t c = 0; c < dim; ++c) {
            score += args.q[(i * heads + head) * dim + c] *
                     args.k[((first_key + j) * heads + head) * dim + c];
          }
          p[j] = args.scale * score;
          max = std::max(max, p[j]);
        }
        double sum = 0;
        for (double& x : p) sum += x = max == -kInfinity ? 0 : std::exp(x - max);
        for (double& x : p) x = sum == 0 ? 0 : x / sum;
        f(head, i, first_key, p, sum == 0 ? -kInfinity : max + std::log(sum));
      }
    }
  }
}

}  // namespace

AttentionOutput attention_forward(const Attention& args) {
  const std::int64_t heads = args.num_heads, dim = args.head_dim;
  const std::int64_t tokens = std::ssize(args.q) / (heads * dim);
  AttentionOutput result{std::vector<double>(args.q.size(), 0.0),
                         std::vector<double>(heads * tokens, 0.0)};
  for_each_query(args, [&](std::int64_t head, std::int64_t i, std::int64_t first_key,
                           const std::vector<double>& p, double lse) {
    result.lse[head * tokens + i] = lse;
    for (std::int64_t j = 0; j < std::ssize(p); ++j) {
      for (std::int64_t c = 0; c < dim; ++c) {
        result.out[(i * heads + head) * dim + c] +=
            p[j] * args.v[((first_key + j) * heads + head) * dim + c];
      }
    }
  });
  return result;
}

AttentionGradients attention_backward(const Attention& args, const std::vector<double>& d_out) {
  const std::int64_t heads = args.num_heads, dim = args.head_dim;
  AttentionGradients result{std::vector<double>(args.q.size(), 0.0),
                            std::vector<double>(args.k.size(), 0.0),
                            std::vector<double>(args.v.size(), 0.0)};
  for_each_query(args, [&](std::int64_t head, std::int64_t i, std::int64_t first_key,
                           const std::vector<double>& p, double) {
    const std::int64_t query = (i * heads + head) * dim;
    std::vector<double> d_p(p.size(), 0.0);
    double mean = 0;
    for (std::int64_t j = 0; j < std::ssize(p); ++j) {
      const std::int64_t key = ((first_key + j) * heads + head) * dim;
      for (std::int64_t c = 0; c < dim; ++c) {
        d_p[j] += d_out[query + c] * args.v[key + c];
        result.d_v[key + c] += p[j] * d_out[query + c];
      }
      mean += p[j] * d_p[j];
    }
    for (std::int64_t j = 0; j < std::ssize(p); ++j) {
      const std::int64_t key = ((first_key + j) * heads + head) * dim;
      const double d_score = args.scale * p[j] * (d_p[j] - mean);
      for (std::int64_t c = 0; c < dim; ++c) {
        result.d_q[query + c] += d_score * args.k[key + c];
        result.d_k[key + c] += d_score * args.q[query + c];
      }
    }
  });
  return result;
}

}  // namespace serrate::reference
