#include "serrate/kernels/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/simd_targets.h"

#include "hwy/highway.h"
#include "serrate/error.h"
#include "tests/reference/attention.h"

namespace serrate {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::int64_t kTokensBefore = 2, kTokensAfter = 3;  // that belong to no sequence

struct Shape {
  std::vector<std::int64_t> query_lengths, key_lengths;
  std::int64_t num_heads = 1;
  std::int64_t head_dim = 8;
  AttentionMask mask = AttentionMask::kCausal;
};

std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> offsets = {kTokensBefore};
  for (const std::int64_t length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

// [num_tokens, num_heads, head_dim] with a gap after every head and after every token. Values
// outside the sequences and in the gaps are NaN: a kernel that reads one shows it.
struct Tokens {
  std::int64_t begin, end, num_heads, head_dim, head_stride, token_stride;
  std::vector<float> values;

  Tokens(const std::vector<std::int64_t>& offsets, const Shape& shape)
      : begin(offsets.front()),
        end(offsets.back()),
        num_heads(shape.num_heads),
        head_dim(shape.head_dim),
        head_stride(shape.head_dim + 5),
        token_stride(shape.num_heads * head_stride + 3),
        values((end + kTokensAfter) * token_stride, std::nanf("")) {}

  template <typename F>
  void for_each(F&& f) {
    for (std::int64_t token = begin; token < end; ++token) {
      for (std::int64_t head = 0; head < num_heads; ++head) {
        for (std::int64_t c = 0; c < head_dim; ++c) {
          f(values[token * token_stride + head * head_stride + c],
            (token * num_heads + head) * head_dim + c);
        }
      }
    }
  }
  void randomise(std::mt19937& generator, float scale) {
    std::normal_distribution<float> normal(0, scale);
    for_each([&](float& x, std::int64_t) { x = normal(generator); });
  }
  // Dense, for the reference.
  std::vector<double> dense() {
    std::vector<double> result((end + kTokensAfter) * num_heads * head_dim, 0.0);
    for_each([&](float& x, std::int64_t i) { result[i] = x; });
    return result;
  }
  bool nothing_else_written() {
    std::int64_t inside = 0, finite = 0;
    for_each([&](float& x, std::int64_t) { inside += !std::isnan(x); });
    for (const float x : values) finite += !std::isnan(x);
    return inside == finite && inside == (end - begin) * num_heads * head_dim;
  }
  HeadsView<float> view() { return {values.data(), token_stride, head_stride}; }
};

struct Case {
  Shape shape;
  std::vector<std::int64_t> query_offsets, key_offsets;
  Tokens q, k, v, d_out, out, d_q, d_k, d_v;
  std::vector<float> lse;
  float scale;

  explicit Case(const Shape& s, float logit_size = 1)
      : shape(s),
        query_offsets(offsets_of(s.query_lengths)),
        key_offsets(offsets_of(s.key_lengths)),
        q(query_offsets, s),
        k(key_offsets, s),
        v(k),
        d_out(q),
        out(q),
        d_q(q),
        d_k(k),
        d_v(k),
        lse((query_offsets.back() + kTokensAfter) * s.num_heads, std::nanf("")),
        scale(1 / std::sqrt(static_cast<float>(s.head_dim))) {
    std::mt19937 generator(7);
    q.randomise(generator, logit_size);
    for (Tokens* x : {&k, &v, &d_out}) x->randomise(generator, 1);
  }

  AttentionForward forward_args() {
    return {.q = q.view(),
            .k = k.view(),
            .v = v.view(),
            .out = out.view(),
            .lse = lse,
            .query_offsets = query_offsets,
            .key_offsets = key_offsets,
            .num_heads = shape.num_heads,
            .head_dim = shape.head_dim,
            .scale = scale,
            .mask = shape.mask};
  }
  void run(int num_threads = 1) {
    const Stream stream(Device::cpu(), num_threads);
    jagged_attention_forward(forward_args(), stream);
    jagged_attention_backward({.forward = forward_args(),
                               .d_out = d_out.view(),
                               .d_q = d_q.view(),
                               .d_k = d_k.view(),
                               .d_v = d_v.view()},
                              stream);
  }
  reference::Attention in_double() {
    return {q.dense(),       k.dense(),      v.dense(), query_offsets, key_offsets,
            shape.num_heads, shape.head_dim, scale,     shape.mask};
  }
};

void expect_close(Tokens& actual, const std::vector<double>& expected, double tolerance) {
  EXPECT_TRUE(actual.nothing_else_written());
  double largest = 0, worst = 0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  actual.for_each(
      [&](float& x, std::int64_t i) { worst = std::max(worst, std::abs(x - expected[i])); });
  EXPECT_LE(worst, tolerance * largest);
}

template <typename F>
void for_every_target(F&& f) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    f();
  }
  hwy::SetSupportedTargetsForTest(0);
}

void expect_matches_reference(Case& c, double tolerance) {
  const reference::Attention args = c.in_double();
  const reference::AttentionOutput output = reference::attention_forward(args);
  const reference::AttentionGradients gradients =
      reference::attention_backward(args, c.d_out.dense());
  for_every_target([&] {
    c.run();
    expect_close(c.out, output.out, tolerance);
    expect_close(c.d_q, gradients.d_q, tolerance);
    expect_close(c.d_k, gradients.d_k, tolerance);
    expect_close(c.d_v, gradients.d_v, tolerance);
    const std::int64_t tokens = std::ssize(c.lse) / c.shape.num_heads;
    for (std::int64_t head = 0; head < c.shape.num_heads; ++head) {
      for (std::int64_t i = 0; i < tokens; ++i) {
        const float lse = c.lse[head * tokens + i];
        if (i < c.query_offsets.front() || i >= c.query_offsets.back()) {
          ASSERT_TRUE(std::isnan(lse));
        } else if (output.lse[head * tokens + i] == -kInfinity) {
          ASSERT_EQ(lse, -kInfinity);
        } else {
          ASSERT_NEAR(lse, output.lse[head * tokens + i], tolerance * 10);
        }
      }
    }
  });
}

const std::vector<std::int64_t> kLengths = {0, 1, 7, 63, 64, 65, 127, 128, 129, 200};

// Every length of queries with every length of keys.
Shape all_pairs(std::int64_t num_heads, std::int64_t head_dim, AttentionMask mask) {
  Shape shape{{}, {}, num_heads, head_dim, mask};
  for (const std::int64_t queries : kLengths) {
    for (const std::int64_t keys : kLengths) {
      shape.query_lengths.push_back(queries);
      shape.key_lengths.push_back(keys);
    }
  }
  return shape;
}

class AttentionSizes : public testing::TestWithParam<
                           std::tuple<std::pair<std::int64_t, std::int64_t>, AttentionMask>> {};

TEST_P(AttentionSizes, AllPairsOfLengthsMatchTheReference) {
  const auto [size, mask] = GetParam();
  Case c(all_pairs(size.first, size.second, mask));
  expect_matches_reference(c, 2e-6);
}

INSTANTIATE_TEST_SUITE_P(
    All, AttentionSizes,
    testing::Combine(testing::Values(std::pair{4, 8}, std::pair{3, 32}, std::pair{2, 50},
                                     std::pair{2, 64}, std::pair{1, 128}),
                     testing::Values(AttentionMask::kFull, AttentionMask::kCausal)));

TEST(Attention, OneAndManyDimensionsMatchTheReference) {
  for (const std::int64_t head_dim : {1, 3, 17, 255, 256}) {
    Case c({{5, 70, 0, 33}, {9, 70, 4, 2}, 2, head_dim, AttentionMask::kCausal});
    expect_matches_reference(c, 2e-6);
  }
}

TEST(Attention, AQueryBetweenTwoKeysAveragesTheirValues) {
  Case c({{1}, {2}, 1, 1, AttentionMask::kFull});
  c.scale = 1;
  c.q.for_each([](float& x, std::int64_t) { x = std::log(3.0f); });
  float next = 0;
  for (Tokens* x : {&c.k, &c.v}) x->for_each([&](float& value, std::int64_t) { value = next++; });
  c.run();
  // Weights 1/4 and 3/4 of the values 2 and 3.
  const std::int64_t token = kTokensBefore;
  EXPECT_FLOAT_EQ(*c.out.view().at(token, 0), 2.75f);
  EXPECT_FLOAT_EQ(c.lse[token], std::log(4.0f));
}

TEST(Attention, HugeLogitsNeitherOverflowNorVanish) {
  for (const AttentionMask mask : {AttentionMask::kFull, AttentionMask::kCausal}) {
    Case c({{130, 5}, {130, 77}, 2, 32, mask}, 1e4f);
    const reference::AttentionOutput expected = reference::attention_forward(c.in_double());
    c.run();
    expect_close(c.out, expected.out, 5e-3);  // a score of 2e4 is good to 1e-3
    for (Tokens* x : {&c.d_q, &c.d_k, &c.d_v}) EXPECT_TRUE(x->nothing_else_written());
  }
}

TEST(Attention, KeysThatAttendToNothingGetNoGradient) {
  Case c({{0, 2}, {3, 6}, 2, 16, AttentionMask::kCausal});
  c.run();
  const std::vector<std::int64_t>& offsets = c.key_offsets;
  for (Tokens* x : {&c.d_k, &c.d_v}) {
    for (std::int64_t token = offsets[0]; token < offsets[2]; ++token) {
      const bool seen = token == offsets[1] || token == offsets[1] + 1;
      for (std::int64_t i = 0; i < 16; ++i) {
        EXPECT_EQ(x->view().at(token, 1)[i] != 0, seen);
      }
    }
  }
}

std::vector<std::vector<float>> results(Case& c) {
  return {c.out.values, c.d_q.values, c.d_k.values, c.d_v.values};
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

TEST(Attention, BitsDoNotDependOnTheNumberOfThreads) {
  const Shape shape{{300, 1, 64, 0, 129, 700, 5}, {300, 9, 64, 3, 129, 700, 0}, 3, 32};
  Case one(shape);
  one.run();
  for (const int threads : {2, 3}) {
    Case many(shape);
    many.run(threads);
    expect_same_bits(one.lse, many.lse);
    for (std::size_t i = 0; i < 4; ++i) expect_same_bits(results(one)[i], results(many)[i]);
  }
}

TEST(Attention, BitsOfASequenceDoNotDependOnTheRestOfTheBatch) {
  const std::int64_t length = 150;
  Case batch({{20, length, 70}, {20, length, 33}, 2, 32});
  batch.run(2);
  Case alone({{length}, {length}, 2, 32});
  const std::pair<Tokens*, Tokens*> inputs[] = {{&batch.q, &alone.q},
                                                {&batch.k, &alone.k},
                                                {&batch.v, &alone.v},
                                                {&batch.d_out, &alone.d_out}};
  for (const auto& [source, to] : inputs) {
    to->for_each([&, from = source](float& x, std::int64_t i) {
      x = from->view().at(i / 64 + 20, i / 32 % 2)[i % 32];
    });
  }
  alone.run();
  const std::pair<Tokens*, Tokens*> outputs[] = {{&batch.out, &alone.out},
                                                 {&batch.d_q, &alone.d_q},
                                                 {&batch.d_k, &alone.d_k},
                                                 {&batch.d_v, &alone.d_v}};
  for (const auto& [together, on_its_own] : outputs) {
    on_its_own->for_each([&, in_batch = together](float& x, std::int64_t i) {
      ASSERT_EQ(x, in_batch->view().at(i / 64 + 20, i / 32 % 2)[i % 32]);
    });
  }
}

TEST(Attention, EmptyBatchesAndEmptySequencesDoNothing) {
  for (const std::size_t batch_size : {0, 3}) {
    const std::vector<std::int64_t> none(batch_size, 0);
    Case c({none, none, 2, 16, AttentionMask::kCausal});
    c.run(2);
    for (Tokens* x : {&c.out, &c.d_q, &c.d_k, &c.d_v}) EXPECT_TRUE(x->nothing_else_written());
  }
}

TEST(Attention, BadArgumentsAreErrors) {
  const Stream stream;
  Case c({{4, 4}, {4, 4}, 1, 8, AttentionMask::kFull});
  AttentionForward args = c.forward_args();
  args.head_dim = 257;
  EXPECT_THROW(jagged_attention_forward(args, stream), Error);
  args = c.forward_args();
  args.key_offsets = args.key_offsets.first(2);
  EXPECT_THROW(jagged_attention_forward(args, stream), Error);
  args = c.forward_args();
  args.lse = args.lse.first(9);
  EXPECT_THROW(jagged_attention_forward(args, stream), Error);
  args.lse = {};
  EXPECT_NO_THROW(jagged_attention_forward(args, stream));
  const AttentionBackward without_lse{args, c.d_out.view(), c.d_q.view(), c.d_k.view(),
                                      c.d_v.view()};
  EXPECT_THROW(jagged_attention_backward(without_lse, stream), Error);
  args = c.forward_args();
  std::swap(c.query_offsets[0], c.query_offsets[1]);
  EXPECT_THROW(jagged_attention_forward(args, stream), Error);
}

// The reference's backward, which the kernels are held against, is the derivative of its forward.
TEST(AttentionReference, BackwardIsTheDerivativeOfTheForward) {
  Case c({{3, 0, 5}, {4, 2, 5}, 2, 3, AttentionMask::kCausal});
  reference::Attention args = c.in_double();
  const std::vector<double> d_out = c.d_out.dense();
  const auto loss = [&] {
    const std::vector<double> out = reference::attention_forward(args).out;
    return std::inner_product(out.begin(), out.end(), d_out.begin(), 0.0);
  };
  const reference::AttentionGradients gradients = reference::attention_backward(args, d_out);
  const std::pair<std::vector<double>*, const std::vector<double>*> inputs[] = {
      {&args.q, &gradients.d_q}, {&args.k, &gradients.d_k}, {&args.v, &gradients.d_v}};
  for (const auto& [input, gradient] : inputs) {
    for (std::size_t i = 0; i < input->size(); ++i) {
      const double kept = (*input)[i], step = 1e-5;
      (*input)[i] = kept + step;
      const double above = loss();
      (*input)[i] = kept - step;
      const double below = loss();
      (*input)[i] = kept;
      ASSERT_NEAR((*gradient)[i], (above - below) / (2 * step), 1e-8);
    }
  }
}

}  // namespace
}  // namespace serrate
