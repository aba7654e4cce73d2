#include "tests/reference/sasrec.h"

#include <cmath>

#include "tests/reference/attention.h"

namespace serrate::reference {
namespace {

constexpr double kNormEps = 1e-5;
constexpr double kLengthEps = 1e-12;

Matrix sum(Matrix a, const Matrix& b) {
  for (std::size_t i = 0; i < a.values.size(); ++i) a.values[i] += b.values[i];
  return a;
}

void add_row(Matrix& to, std::int64_t row, const Matrix& from, std::int64_t from_row,
             double scale) {
  for (std::int64_t c = 0; c < to.cols; ++c) to(row, c) += scale * from(from_row, c);
}

std::vector<double> columns(const Matrix& x, std::int64_t begin, std::int64_t end) {
  std::vector<double> result;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    for (std::int64_t c = begin; c < end; ++c) result.push_back(x(r, c));
  }
  return result;
}

}  // namespace

Matrix Sasrec::hidden_states(const std::vector<Token>& sequence) const {
  const std::int64_t n = std::ssize(sequence), dim = options.dim;
  const auto parameter = [&](const std::string& name) -> const Matrix& {
    return parameters.at(name);
  };

  Matrix x(n, dim);
  for (std::int64_t t = 0; t < n; ++t) {
    const double scale = std::sqrt(static_cast<double>(dim));
    add_row(x, t, items, sequence[t].item, scale);
    for (const std::int64_t id : sequence[t].others) add_row(x, t, others, id, scale);
    add_row(x, t, parameter("position"), t, 1);
  }
  for (std::int64_t b = 0; b < options.num_blocks; ++b) {
    const std::string block = "block" + std::to_string(b) + ".";
    const auto norm = [&](const Matrix& rows, const std::string& name) {
      return layer_norm(rows, parameter(block + name + ".gamma"), parameter(block + name + ".beta"),
                        kNormEps);
    };
    const auto project = [&](const Matrix& rows, const std::string& name) {
      return linear(rows, parameter(block + name + ".weight"), parameter(block + name + ".bias"));
    };

    const Matrix qkv = project(norm(x, "norm1"), "qkv");
    const std::int64_t head_dim = dim / options.num_heads;
    const AttentionOutput attended =
        attention_forward({.q = columns(qkv, 0, dim),
                           .k = columns(qkv, dim, 2 * dim),
                           .v = columns(qkv, 2 * dim, 3 * dim),
                           .query_offsets = {0, n},
                           .key_offsets = {0, n},
                           .num_heads = options.num_heads,
                           .head_dim = head_dim,
                           .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
                           .num_key_heads = options.num_heads});
    Matrix attention(n, dim);
    attention.values = attended.out;
    x = sum(x, project(attention, "out"));
    x = sum(x, project(activation(options.activation, project(norm(x, "norm2"), "up")), "down"));
  }
  return layer_norm(x, parameter("final_norm.gamma"), parameter("final_norm.beta"), kNormEps);
}

std::int64_t Sasrec::num_tokens() const {
  std::int64_t total = 0;
  for (const auto& sequence : sequences) total += std::ssize(sequence);
  return total;
}

double Sasrec::loss() const {
  const auto scored = [&](const Matrix& rows) {
    return options.l2_normalize ? l2_normalize(rows, kLengthEps) : rows;
  };
  Matrix negative_rows(std::ssize(negatives), options.dim);
  for (std::int64_t i = 0; i < negative_rows.rows; ++i) {
    add_row(negative_rows, i, items, negatives[i], 1);
  }
  double total = 0;
  for (const auto& sequence : sequences) {
    Matrix targets(std::ssize(sequence), options.dim);
    std::vector<std::int64_t> target_ids;
    for (const Token& token : sequence) {
      add_row(targets, std::ssize(target_ids), items, token.target, 1);
      target_ids.push_back(token.target);
    }
    total += sampled_softmax_loss({.hidden = scored(hidden_states(sequence)),
                                   .targets = scored(targets),
                                   .negatives = scored(negative_rows),
                                   .target_ids = target_ids,
                                   .negative_ids = negatives,
                                   .inverse_temperature = 1 / double{options.temperature}});
  }
  return total / static_cast<double>(num_tokens());
}

}  // namespace serrate::reference
