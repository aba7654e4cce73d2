#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

#include "tests/kernels/attention/tensor_core_cases.h"

// What a call may leave, value by value: the reference's, and how far rounding may take a kernel's
// from it.
namespace serrate {

/// Values and how far off each may be.
struct Bounded {
  std::vector<double> values, bounds;
  explicit Bounded(std::vector<double> of) : values(std::move(of)), bounds(values.size()) {}
  explicit Bounded(std::size_t size) : values(size), bounds(size) {}
};

struct ExpectedCall {
  Bounded out, d_q, d_k, d_v, d_scores;
  std::vector<double> lse;
};

/// How far one rounding takes a number x from itself: relative * |x| + least.
struct Rounding {
  double relative = 0, least = 0;
  double of(double x) const { return relative * std::abs(x) + least; }
};
inline Rounding rounding_to(DataType type) {
  if (type == DataType::kFloat32) return {0x1p-24};
  return {rounding_of(type), least_rounding_of(type)};
}

// Sums in float32 and of exponentials are off by so much of the sum of their terms' sizes.
inline constexpr double kFloat32Sums = 3e-5;

inline double absolute_product(const double* x, const double* y, std::int64_t size) {
  double sum = 0;
  for (std::int64_t c = 0; c < size; ++c) sum += std::abs(x[c] * y[c]);
  return sum;
}

// bounds += factor * |x|
inline void add_sizes(double factor, const double* x, std::int64_t size, double* bounds) {
  for (std::int64_t c = 0; c < size; ++c) bounds[c] += factor * std::abs(x[c]);
}

/// What a run of a case is to leave in it. The forward rounds weights, and the backward weights and
/// gradients of scores, by so much; sums of d_out * out are of the out that the run has left.
inline ExpectedCall expected_of(Case& c, Rounding of_forward, Rounding of_backward) {
  const reference::Attention args = c.in_double();
  const std::vector<double> d_out = c.d_out.dense(), stored = c.out.dense();
  const reference::AttentionOutput output = reference::attention_forward(args);
  ExpectedCall result{
      Bounded(output.out),         Bounded(args.q.size()),
      Bounded(args.k.size()),      Bounded(reference::attention_backward(args, d_out).d_v),
      Bounded(score_gradients(c)), output.lse};
  const bool is_softmax = c.shape.activation == AttentionActivation::kSoftmax;
  const std::int64_t dim = args.head_dim, tokens = std::ssize(output.lse) / args.num_heads;
  if (!is_softmax) {  // what is rounded is so before SiLU's divisor
    for (Rounding* x : {&of_forward, &of_backward}) x->least /= std::abs(args.silu_divisor);
  }
  for_each_score(c, args, [&](std::size_t pair, double score, std::int64_t q, std::int64_t k) {
    if (score == -kInfinity) return;
    const double kept = args.kept.empty() ? 1 : args.kept[pair];
    const double sigmoid = 1 / (1 + std::exp(-score));
    const double weight =
        is_softmax ? std::exp(score - output.lse[q % args.num_heads * tokens + q / args.num_heads])
                   : score * sigmoid / args.silu_divisor;
    const double slope =
        is_softmax ? weight : sigmoid * (1 + std::abs(score) * (1 - sigmoid)) / args.silu_divisor;
    const double* const of_d_out = &d_out[q * dim];
    const double terms = kept * absolute_product(of_d_out, &args.v[k * dim], dim) +
                         (is_softmax ? absolute_product(of_d_out, &stored[q * dim], dim) : 0);
    const double d_score = result.d_scores.values[pair];
    result.d_scores.bounds[pair] = kFloat32Sums * std::abs(slope) * terms;
    const double exact_error =
        kFloat32Sums * (std::abs(weight) + (is_softmax ? 0 : std::abs(slope)));
    add_sizes(kept * (of_forward.of(weight) + exact_error), &args.v[k * dim], dim,
              &result.out.bounds[q * dim]);
    add_sizes(kept * (of_backward.of(weight) + exact_error), of_d_out, dim,
              &result.d_v.bounds[k * dim]);
    const double d_score_error =
        result.d_scores.bounds[pair] + of_backward.of(d_score) + kFloat32Sums * std::abs(d_score);
    for (std::int64_t x = 0; x < dim; ++x) {
      result.d_q.values[q * dim + x] += args.scale * d_score * args.k[k * dim + x];
      result.d_k.values[k * dim + x] += args.scale * d_score * args.q[q * dim + x];
    }
    const double scaled = std::abs(args.scale) * d_score_error;
    add_sizes(scaled, &args.k[k * dim], dim, &result.d_q.bounds[q * dim]);
    add_sizes(scaled, &args.q[q * dim], dim, &result.d_k.bounds[k * dim]);
  });
  return result;
}

/// Holds tokens of a type against what is expected.
inline void expect_within(std::string_view name, Tokens& actual, const Bounded& expected,
                          DataType type) {
  EXPECT_TRUE(actual.nothing_else_written()) << name;
  double worst = 0;
  std::int64_t where = -1;
  actual.for_each([&](float& x, std::int64_t i) {
    const double bound = expected.bounds[i] +
                         rounding_to(type).of(std::abs(expected.values[i]) + expected.bounds[i]);
    const double ratio = std::abs(x - expected.values[i]) / (bound + 1e-30);
    if (ratio > worst || std::isnan(ratio)) worst = ratio, where = i;
  });
  const std::int64_t dim = actual.head_dim, heads = actual.num_heads;
  EXPECT_LE(worst, 1) << name << " is off by so many bounds at token " << where / dim / heads
                      << ", head " << where / dim % heads << ", column " << where % dim;
}

}  // namespace serrate
