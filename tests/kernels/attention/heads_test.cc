// SiLU beside softmax, heads that share keys, and queries that sequences share.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/kernels/attention/tensor_core_cases.h"
#include "tests/kernels/attention/tokens.h"

namespace serrate {
namespace {

class AttentionSilu : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionSilu, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionSilu, AScoreOfOneWeighsItsValueByItsSilu) {
  Shape shape = full_shape({1}, {2}, 1, 1);
  shape.activation = AttentionActivation::kSilu;
  shape.silu_divisor = 4;
  Case c(shape, *this);
  c.scale = 1;
  float next = 0;
  c.q.for_each([](float& x, std::int64_t) { x = 1; });
  for (Tokens* x : {&c.k, &c.v}) x->for_each([&](float& value, std::int64_t) { value = next++; });
  c.run();
  // Scores 0 and 1, values 2 and 3; silu(1) = 1 / (1 + 1/e).
  EXPECT_FLOAT_EQ(*c.out.at(kTokensBefore, 0), 3 * 0.7310585786f / 4);
  EXPECT_TRUE(std::isnan(c.lse[kTokensBefore]));
}

TEST_P(AttentionSilu, MatchesTheReferenceOverSeveralTiles) {
  for (const auto shape_of : {causal_shape, full_shape}) {
    Shape shape = sized(shape_of({130, 0, 97, 30, 65}, {150, 5, 97, 0, 300}, 2, 24));
    shape.activation = AttentionActivation::kSilu;
    Case c(shape, *this);
    expect_matches_reference(c, 2e-6);
  }
}

TEST_P(AttentionSilu, LargeScoresNeitherOverflowNorVanish) {
  Shape shape = sized(causal_shape({130, 5}, {130, 77}, 2, 32));
  shape.activation = AttentionActivation::kSilu;
  Case c(shape, *this, 1e4f);
  expect_matches_reference(c, 1e-5);
}

class AttentionHeads : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionHeads, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionHeads, GroupsOfHeadsShareKeysAndValues) {
  for (const std::int64_t num_key_heads : {1, 2, 3}) {
    Shape shape = sized(causal_shape({130, 0, 33}, {150, 5, 40}, 6, 20));
    shape.num_key_heads = num_key_heads;
    Case c(shape, *this);
    expect_matches_reference(c, 2e-6);
  }
}

class AttentionSharedQueries : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionSharedQueries, testing::ValuesIn(test_devices()),
                         device_name);

// Against a batch in which every sequence has a copy of the queries.
TEST_P(AttentionSharedQueries, GiveWhatCopiesOfThemGiveAndSumTheirGradient) {
  constexpr std::int64_t kQueries = 5, kSequences = 4, kHeads = 2, kDim = 12;
  const std::vector<std::int64_t> keys = {130, 0, 7, 64};
  Case c(full_shape(std::vector<std::int64_t>(kSequences, kQueries), keys, kHeads, kDim), *this);
  const auto for_each_of = [&](Tokens& copies, auto&& f) {
    copies.for_each([&](float& x, std::int64_t i) {
      const std::int64_t token = i / (kHeads * kDim) - kTokensBefore;
      f(x, token % kQueries, i / kDim % kHeads, i % kDim);
    });
  };
  Tokens shared({kTokensBefore, kTokensBefore + kQueries}, kHeads, kDim);
  for_each_of(c.q, [&](float& x, std::int64_t i, std::int64_t head, std::int64_t column) {
    float& first = shared.at(kTokensBefore + i, head)[column];
    if (std::isnan(first)) first = x;
    x = first;
  });
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    c.shape.activation = activation;
    c.run();

    // Token 0 is the first: views that begin there.
    const auto from_first = [&](Tokens& x) { return x.on(stream, kTokensBefore); };
    Tokens out(c.out), d_q(shared), d_k(c.d_k), d_v(c.d_v);
    TestArray<float> lse(kHeads * kSequences * kQueries);
    AttentionForward forward = c.forward_args();
    forward.q = from_first(shared), forward.out = from_first(out);
    forward.lse = lse.on(stream);
    forward.query_offsets = {};
    forward.num_shared_queries = kQueries;
    const AttentionBackward backward{forward, from_first(c.d_out), from_first(d_q), d_k.on(stream),
                                     d_v.on(stream)};
    jagged_attention_forward(forward, threads(16));
    jagged_attention_backward(backward, threads(16));
    if (stream.device() == Device::cpu()) {  // which sums d_q in workspace
      EXPECT_GE(jagged_attention_backward_workspace(backward, stream),
                c.out.values.size() - shared.values.size());
    }
    expect_same_bits(out.values, c.out.values);
    expect_same_bits(d_k.values, c.d_k.values);
    expect_same_bits(d_v.values, c.d_v.values);
    std::vector<float> sums(kQueries * kHeads * kDim, 0);
    for_each_of(c.d_q, [&](float& x, std::int64_t i, std::int64_t head, std::int64_t column) {
      sums[(i * kHeads + head) * kDim + column] += x;
    });
    d_q.for_each(
        [&](float& x, std::int64_t i) { EXPECT_EQ(x, sums[i - kTokensBefore * kHeads * kDim]); });
  }
}

TEST_P(AttentionSharedQueries, OfSequencesWithoutKeysAreZero) {
  constexpr std::int64_t kQueries = 3, kDim = 8;
  const TestArray<float> q(kQueries * kDim, 1), d_out(2 * kQueries * kDim, 1);
  const TestArray<std::int64_t> key_offsets = {0, 0, 0};
  TestArray<float> out(d_out.size(), std::nanf("")), d_q(q.size(), std::nanf("")), lse(6);
  const auto view = [&](const TestArray<float>& x) {
    return DeviceHeads<float>{x.on(stream).device_data(), kDim, kDim};
  };
  AttentionForward forward;
  forward.q = view(q), forward.out = view(out), forward.lse = lse.on(stream);
  forward.key_offsets = key_offsets.on(stream);
  forward.num_shared_queries = kQueries, forward.head_dim = kDim, forward.mask = FullMask{};
  jagged_attention_forward(forward, stream);
  jagged_attention_backward({forward, view(d_out), view(d_q), {}, {}}, stream);
  EXPECT_EQ(out.host(), std::vector<float>(out.size(), 0));
  EXPECT_EQ(d_q.host(), std::vector<float>(q.size(), 0));
  EXPECT_EQ(lse.host(), std::vector<float>(lse.size(), -kInfinity));
}

// Sequences of no, one and several tiles of keys, and several that share a tile; of one tile of
// queries and several. At head_dim 32 blocks have whole sequences. More than 512 keys take
// Hopper's forward, where there is one, and the backward of others.
TEST_P(AttentionSharedQueries, HaveTheSumOfTheReferenceOnTensorCores) {
  const std::vector<std::int64_t> some_keys = {70, 0, 7, 64, 20, 3, 1, 130, 9};
  struct Sizes {
    std::int64_t heads, head_dim, queries;
    AttentionActivation activation;
    DataType half;
    std::vector<std::int64_t> keys;
  };
  for (const auto& [heads, head_dim, queries, activation, half, keys] :
       {Sizes{8, 32, 5, AttentionActivation::kSoftmax, DataType::kBFloat16, some_keys},
        Sizes{2, 32, 70, AttentionActivation::kSilu, DataType::kFloat16, some_keys},
        Sizes{2, 32, 20, AttentionActivation::kSoftmax, DataType::kFloat32, some_keys},
        Sizes{1, 64, 20, AttentionActivation::kSoftmax, DataType::kFloat16, some_keys},
        Sizes{1, 64, 66, AttentionActivation::kSoftmax, DataType::kBFloat16, {520, 9}},
        Sizes{1, 128, 5, AttentionActivation::kSoftmax, DataType::kBFloat16, some_keys},
        Sizes{1, 256, 5, AttentionActivation::kSoftmax, DataType::kFloat16, some_keys},
        Sizes{1, 256, 20, AttentionActivation::kSoftmax, DataType::kFloat32, {70, 0, 20}}}) {
    SCOPED_TRACE(testing::Message() << heads << " heads of " << head_dim);
    const std::int64_t num_sequences = std::ssize(keys);
    Shape shape =
        full_shape(std::vector<std::int64_t>(num_sequences, queries), keys, heads, head_dim);
    shape.activation = activation;
    shape.gaps = kAlignedGaps;
    Case c(with_enough_heads(stream, shape), *this);
    const bool is_float = half == DataType::kFloat32;
    if (is_float) round_to_tf32(c);
    const std::int64_t row = c.shape.num_heads * head_dim, first = kTokensBefore * row;
    Tokens shared_q({kTokensBefore, kTokensBefore + queries}, c.shape.num_heads, head_dim,
                    kAlignedGaps);
    shared_q.for_each([&, of_first = c.q.dense()](float& x, std::int64_t i) {
      x = static_cast<float>(of_first[i]);
    });
    Tokens d_q(shared_q);
    StoredTokens q(shared_q, half), k(c.k, half), v(c.v, half), d_out(c.d_out, half);
    StoredTokens out(c.out, half), stored_d_q(d_q, half), d_k(c.d_k, half), d_v(c.d_v, half);
    c.q.for_each([&, values = shared_q.dense()](float& x, std::int64_t i) {
      x = static_cast<float>(values[first + (i - first) % (queries * row)]);
    });
    const reference::AttentionGradients gradients =
        reference::attention_backward(c.in_double(), c.d_out.dense());
    std::vector<double> sums(first + queries * row);
    for (std::int64_t i = 0; i < num_sequences * queries * row; ++i) {
      sums[first + i % (queries * row)] += gradients.d_q[first + i];
    }
    // Token 0 is the first: views that begin there.
    AttentionBackward call = c.backward_args();
    TestArray<float> lse(c.shape.num_heads * num_sequences * queries);
    call.forward.q = q.on(stream, kTokensBefore), call.forward.k = k.on(stream);
    call.forward.v = v.on(stream), call.forward.out = out.on(stream, kTokensBefore);
    call.forward.lse = lse.on(stream), call.forward.query_offsets = {};
    call.forward.num_shared_queries = queries;
    call.d_out = d_out.on(stream, kTokensBefore);
    if (stream.device().type != DeviceType::kCpu) {
      if (is_float) call.forward.precision = Precision::kTf32;
      EXPECT_EQ(tasks_of(call.forward, stream).resident > 0, head_dim == 32 && !is_float);
    }
    jagged_attention_forward(call.forward, stream);
    std::vector<float> of_first_run;
    for (int run = 0; run < 2; ++run) {
      call.d_q = stored_d_q.on(stream, kTokensBefore);
      call.d_k = d_k.on(stream), call.d_v = d_v.on(stream);
      expect_tensor_cores(call, stream, Backward::kOnTensorCores);
      jagged_attention_backward(call, stream);
      for (StoredTokens* x : {&stored_d_q, &d_k, &d_v}) x->load();
      expect_close(d_q, sums, 2 * rounding_of(half));
      expect_close(c.d_k, gradients.d_k, 2 * rounding_of(half));
      expect_close(c.d_v, gradients.d_v, 2 * rounding_of(half));
      if (run == 0) of_first_run = d_q.values.host();
      expect_same_bits(d_q.values.host(), of_first_run);
    }
  }
}

// The forward alone, without a log-sum-exp; with plans.
TEST_P(AttentionSharedQueries, GiveWhatCopiesOfThemGiveOnTensorCores) {
  constexpr std::int64_t kQueries = 5, kHeads = 2, kDim = 64, kRow = kHeads * kDim;
  const std::vector<std::int64_t> key_lengths = {130, 0, 7, 64};
  const std::int64_t rows = kQueries * std::ssize(key_lengths);
  const std::vector<std::int64_t> key_offsets = offsets_of(key_lengths);
  std::vector<std::int64_t> query_offsets;
  for (std::size_t s = 0; s < key_offsets.size(); ++s) query_offsets.push_back(s * kQueries);
  std::mt19937 generator(4);
  const PackedTokens packed{kHeads, kDim};
  const auto random = [&](std::int64_t tokens) { return packed.random(tokens, generator); };
  const auto view = [&](const TestArray<BFloat16>& x) { return packed.on(x, stream); };
  const auto q = random(kQueries), k = random(key_offsets.back()), v = random(key_offsets.back());
  TestArray<BFloat16> copies, expected(rows * kRow);
  for (std::int64_t i = 0; i < rows * kRow; ++i) {
    copies.host().push_back(q[i % (kQueries * kRow)]);
  }
  Inputs inputs;
  AttentionForward forward;
  forward.q = view(q), forward.k = view(k), forward.v = view(v), forward.out = view(expected);
  forward.key_offsets = inputs.on(stream, key_offsets);
  forward.num_shared_queries = kQueries;
  forward.num_heads = kHeads, forward.head_dim = kDim, forward.mask = FullMask{};
  jagged_attention_forward(forward, stream);
  forward.num_shared_queries = 0;
  forward.query_offsets = inputs.on(stream, query_offsets);
  forward.q = view(copies);
  const auto expect_same = [&] {
    const TestArray<BFloat16> out(rows * kRow);
    forward.out = view(out);
    jagged_attention_forward(forward, stream);
    for (std::int64_t i = 0; i < rows * kRow; ++i) {
      ASSERT_EQ(static_cast<float>(out[i]), static_cast<float>(expected[i]));
    }
  };
  expect_same();
  // With a plan that was made without tokens, or of tokens that do not take tensor cores.
  const TestArray<float> floats(rows * kRow);
  for (const InputHeads& tokens :
       {InputHeads(),
        InputHeads(DeviceHeads<float>{floats.on(stream).device_data(), kRow, kDim})}) {
    AttentionForward before = forward;
    before.q = tokens;
    const AttentionPlan plan = plan_attention(before, stream);
    forward.plan = &plan;
    expect_same();
  }
}

}  // namespace
}  // namespace serrate
