// What the declaration promises of any call: zero lengths, rows that are not touched, bits that
// depend on nothing but a sequence, views into one buffer.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "serrate/bfloat16.h"
#include "serrate/buffer.h"
#include "tests/kernels/attention/biases.h"
#include "tests/kernels/attention/masks.h"
#include "tests/kernels/attention/tokens.h"

namespace serrate {
namespace {

constexpr auto kActivations = std::array{AttentionActivation::kSoftmax, AttentionActivation::kSilu};

// Memory that the allocator may hand out again is NaN.
void poison_heap(std::int64_t bytes, const Stream& stream) {
  std::vector<Buffer<float>> blocks;
  for (std::int64_t size = bytes / 4; size > 1024; size /= 2) {
    blocks.emplace_back(std::vector<float>(size, std::nanf("")), stream);
  }
}

class AttentionContract : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionContract, testing::ValuesIn(test_devices()), device_name);

// Every batch of two sequences, each of 9 pairs of lengths.
TEST_P(AttentionContract, AnyLengthMayBeZero) {
  const std::vector<std::int64_t> lengths = {0, 1, 20};
  const auto pair = [&](std::size_t i) { return std::pair(lengths[i / 3], lengths[i % 3]); };
  for (const AttentionActivation activation : kActivations) {
    for (std::size_t first = 0; first < 9; first += on_cpu_or_not(1, 2)) {
      for (std::size_t second = 0; second < 9; second += on_cpu_or_not(1, 4)) {
        Shape shape = causal_shape({pair(first).first, pair(second).first},
                                   {pair(first).second, pair(second).second}, 4, 12);
        shape.activation = activation;
        shape.num_key_heads = 2;
        Case c(shape, *this);
        const Biases biases(c);
        c.token_ids = ids_of_tokens(c);
        c.dropout = {.rate = 0.25f, .seed = 1};
        c.kept_of_pairs = kept_of(c, c.in_double());
        c.run(2);
        SCOPED_TRACE(testing::Message() << "pairs " << first << ", " << second);
        // For a query that sees one key, what ought to be 0 is as good as the sum of d_out * out.
        expect_values_of_reference(c, 1e-4);
      }
    }
  }
}

// More sequences than a 16-bit count of blocks, or a grid, would like.
TEST_P(AttentionContract, TwentyThousandSequencesMatchTheReference) {
  Shape shape = causal_shape({}, {}, 2, 6);
  std::mt19937 generator(2);
  for (int s = 0; s < on_cpu_or_not(20'000, 100); ++s) {
    shape.query_lengths.push_back(static_cast<std::int64_t>(generator() % 4));
    shape.key_lengths.push_back(static_cast<std::int64_t>(generator() % 5));
  }
  const int longest = on_cpu_or_not(12'345, 45);
  shape.query_lengths[longest] = on_cpu_or_not(150, 40);
  shape.key_lengths[longest] = on_cpu_or_not(140, 37);
  for (const AttentionActivation activation : kActivations) {
    shape.activation = activation;
    Case c(shape, *this);
    c.run(2);
    expect_values_of_reference(c, 3e-6);
  }
}

// A sequence's tokens, whatever else is in the batch: drawn from its name.
struct Named {
  unsigned name;
  std::int64_t queries, keys;
};

struct NamedBatch {
  Case c;
  std::vector<float> bias, by_place;
  TestArray<float> d_bias;
  std::vector<std::int64_t> places = {-4, 0, 1, 5, 60};

  static constexpr std::int64_t kLongest = 200, kBlock = kLongest * kLongest;

  NamedBatch(const std::vector<Named>& sequences, AttentionActivation activation,
             TestStreams& streams)
      : c(shape_of(sequences, activation), streams) {
    bias.resize(sequences.size() * kBlock);
    d_bias.host().resize(bias.size());
    by_place = {1, -1, 0.5f, 0.25f, -0.5f, 0};
    c.token_ids.resize(c.query_offsets.back());
    c.query_times.resize(c.query_offsets.back());
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      std::mt19937 generator(sequences[s].name);
      std::normal_distribution<float> normal;
      for (Tokens* x : {&c.q, &c.k, &c.v, &c.d_out}) {
        const auto& offsets = x == &c.q || x == &c.d_out ? c.query_offsets : c.key_offsets;
        for_each(*x, offsets[s], offsets[s + 1], [&](float& value) { value = normal(generator); });
      }
      std::generate_n(bias.begin() + s * kBlock, kBlock, [&] { return normal(generator); });
      for (std::int64_t t = c.query_offsets[s]; t < c.query_offsets[s + 1]; ++t) {
        c.token_ids[t] = sequences[s].name * 1000 + t - c.query_offsets[s];
      }
    }
    c.bias = {c.input(bias), kBlock, 0, kLongest, 1};
    c.d_bias = &d_bias;
    c.position_table = {c.input(by_place), c.input(places)};
    c.dropout = {.rate = 0.1f, .seed = 3};
  }

  static Shape shape_of(const std::vector<Named>& sequences, AttentionActivation activation) {
    Shape shape = causal_shape({}, {}, 4, 20);
    shape.mask = WindowMask{.left = 90, .right = 3, .corner = MaskCorner::kBottomRight};
    shape.num_key_heads = 2;
    shape.activation = activation;
    for (const Named& sequence : sequences) {
      shape.query_lengths.push_back(sequence.queries);
      shape.key_lengths.push_back(sequence.keys);
    }
    return shape;
  }
  template <typename F>
  static void for_each(Tokens& x, std::int64_t begin, std::int64_t end, F&& f) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t head = 0; head < x.num_heads; ++head) {
        for (std::int64_t i = 0; i < x.head_dim; ++i) f(x.at(t, head)[i]);
      }
    }
  }
  // All that the runs say of a sequence.
  std::vector<float> results_of(std::int64_t s) {
    const auto of_bias = d_bias.host().begin() + s * kBlock;
    std::vector<float> results(of_bias, of_bias + kBlock);
    const auto keep = [&](float& x) { results.push_back(x); };
    for_each(c.out, c.query_offsets[s], c.query_offsets[s + 1], keep);
    for_each(c.d_q, c.query_offsets[s], c.query_offsets[s + 1], keep);
    for_each(c.d_k, c.key_offsets[s], c.key_offsets[s + 1], keep);
    for_each(c.d_v, c.key_offsets[s], c.key_offsets[s + 1], keep);
    if (c.shape.activation != AttentionActivation::kSoftmax) return results;
    const std::int64_t tokens = c.lse.size() / c.shape.num_heads;
    for (std::int64_t head = 0; head < c.shape.num_heads; ++head) {
      for (std::int64_t t = c.query_offsets[s]; t < c.query_offsets[s + 1]; ++t) {
        results.push_back(c.lse[head * tokens + t]);
      }
    }
    return results;
  }
};

TEST_P(AttentionContract, ASequencesBitsAreItsOwn) {
  const auto all = on_cpu_or_not<std::vector<Named>>(
      {{1, 200, 200}, {2, 0, 5}, {3, 3, 180}, {4, 64, 100}, {5, 7, 0}, {6, 97, 96}},
      {{1, 40, 40}, {2, 0, 5}, {3, 3, 33}, {4, 9, 17}, {5, 7, 0}, {6, 33, 16}});
  std::vector<std::vector<std::size_t>> batches = {
      {5, 4, 3, 2, 1, 0}, {0}, {1, 3, 2, 2, 0}, {2}, {5, 5}, {2, 0, 4, 1, 5, 3}};
  batches.resize(on_cpu_or_not(6u, 2u));
  for (const AttentionActivation activation : kActivations) {
    NamedBatch together(all, activation, *this);
    together.c.run(2);
    for (const std::vector<std::size_t>& batch : batches) {
      std::vector<Named> some;
      for (const std::size_t s : batch) some.push_back(all[s]);
      NamedBatch other(some, activation, *this);
      other.c.run(3);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        expect_same_bits(other.results_of(static_cast<std::int64_t>(i)),
                         together.results_of(static_cast<std::int64_t>(batch[i])));
      }
    }
  }
}

// Kernels read whole vectors and tiles; what they read too much has to count for nothing.
TEST_P(AttentionContract, NaNsStayInTheirSequence) {
  const auto all = on_cpu_or_not<std::vector<Named>>(
      {{1, 100, 97}, {2, 33, 200}, {3, 3, 180}, {4, 5, 7}, {5, 17, 1}},
      {{1, 33, 16}, {2, 5, 33}, {5, 17, 1}});
  for (const AttentionActivation activation : kActivations) {
    NamedBatch expected(all, activation, *this);
    expected.c.run();
    for (std::int64_t bad = 0; bad < std::ssize(all); ++bad) {
      NamedBatch batch(all, activation, *this);
      Case& c = batch.c;
      const auto spoil = [](float& x) { x = std::nanf(""); };
      for (Tokens* x : {&c.q, &c.d_out}) {
        batch.for_each(*x, c.query_offsets[bad], c.query_offsets[bad + 1], spoil);
      }
      for (Tokens* x : {&c.k, &c.v}) {
        batch.for_each(*x, c.key_offsets[bad], c.key_offsets[bad + 1], spoil);
      }
      c.run();
      for (std::int64_t s = 0; s < std::ssize(all); ++s) {
        if (s != bad) expect_same_bits(batch.results_of(s), expected.results_of(s));
      }
    }
  }
}

// A NaN that a query sees is told by everything that comes of it, few queries or many.
TEST_P(AttentionContract, NaNsThatAreSeenAreTold) {
  for (const std::int64_t queries : {on_cpu_or_not(130, 34), 10, 2}) {
    Case c(full_shape({queries}, {queries}, 1, 16), *this);
    *c.k.at(kTokensBefore + 1, 0) = std::nanf("");
    c.run();
    for (std::int64_t t = kTokensBefore; t < kTokensBefore + queries; ++t) {
      ASSERT_TRUE(std::isnan(c.lse[t]));
      for (Tokens* x : {&c.out, &c.d_q, &c.d_k, &c.d_v}) {
        for (std::int64_t i = 0; i < 16; ++i) ASSERT_TRUE(std::isnan(x->at(t, 0)[i]));
      }
    }
  }
}

// What a mask hides of keys has no part in the scores of any form of tile.
TEST_P(AttentionContract, KeysThatAreHiddenMayBeNaN) {
  for (const std::int64_t queries : {on_cpu_or_not(130, 34), 10, 2}) {
    Case expected(causal_shape({queries}, {queries}, 1, 16), *this), c(expected.shape, *this);
    const std::int64_t last = kTokensBefore + queries - 1;
    std::fill_n(c.k.at(last, 0), 16, std::nanf(""));  // seen by the last query alone
    expected.run();
    c.run();
    for (std::int64_t t = kTokensBefore; t < last; ++t) {
      ASSERT_EQ(c.lse[t], expected.lse[t]);
      for (std::int64_t i = 0; i < 16; ++i) {
        ASSERT_EQ(c.out.at(t, 0)[i], expected.out.at(t, 0)[i]);
      }
    }
  }
}

// Heads that share keys, in one tile or not.
TEST_P(AttentionContract, NaNsStayInTheirHead) {
  for (const std::int64_t queries : {on_cpu_or_not(130, 34), 10, 2}) {
    Shape shape = causal_shape({queries}, {on_cpu_or_not(170, 40)}, 4, 20);
    shape.num_key_heads = 2;
    Case expected(shape, *this), c(shape, *this);
    expected.run();
    constexpr std::int64_t kBad = 3, kBadKeys = 1;  // the other of its group is 2
    for (std::int64_t t = kTokensBefore; t < kTokensBefore + queries; ++t) {
      std::fill_n(c.q.at(t, kBad), 20, std::nanf(""));
    }
    c.run();
    const auto expect_same_head = [&](Tokens& x, Tokens& y, std::int64_t head) {
      for (std::int64_t t = x.begin; t < x.end; ++t) {
        for (std::int64_t i = 0; i < 20; ++i) {
          ASSERT_EQ(x.at(t, head)[i], y.at(t, head)[i]);
        }
      }
    };
    for (std::int64_t head = 0; head < kBad; ++head) {
      expect_same_head(c.out, expected.out, head);
      expect_same_head(c.d_q, expected.d_q, head);
    }
    for (std::int64_t head = 0; head < kBadKeys; ++head) {
      expect_same_head(c.d_k, expected.d_k, head);
      expect_same_head(c.d_v, expected.d_v, head);
    }
  }
}

// Every option at once, shared biases and tables too, whose gradients sum over the batch; any
// number of threads; workspace that was NaN.
TEST_P(AttentionContract, ThirtyRunsHaveTheSameBitsWithEveryOption) {
  Shape shape =
      on_cpu_or_not(causal_shape({330, 1, 0, 64, 129, 3, 0}, {330, 9, 3, 64, 0, 100, 0}, 4, 20),
                    causal_shape({40, 1, 0, 17}, {40, 9, 3, 5}, 4, 20));
  shape.num_key_heads = 2;
  for (const AttentionActivation activation : kActivations) {
    shape.activation = activation;
    Case first(shape, *this);
    Biases biases(first);
    first.token_ids = ids_of_tokens(first);
    first.dropout = {.rate = 0.2f};
    Case again(first);
    first.run();
    TestArray<float> d_bias(biases.d_bias.size());
    again.d_bias = &d_bias;
    for (int run = 1; run < on_cpu_or_not(30, 2); ++run) {
      for (auto* sum : {&d_bias, &again.d_position_table, &again.d_time_table}) {
        std::ranges::fill(sum->host(), 0.0f);
      }
      poison_heap(std::int64_t{1} << on_cpu_or_not(23, 16), stream);
      again.run(run % 5 + 1);
      expect_same_results(first, again);
      expect_same_bits(biases.d_bias, d_bias);
      expect_same_bits(first.d_position_table, again.d_position_table);
      expect_same_bits(first.d_time_table, again.d_time_table);
      if (HasFailure()) return;
    }
  }
}

// bfloat16 sums d_k, d_v and those of shared queries in workspace.
TEST_P(AttentionContract, ThirtyRunsHaveTheSameBitsInBFloat16WithSharedQueries) {
  constexpr std::int64_t kHeads = 2, kDim = 24;
  const std::int64_t kQueries = on_cpu_or_not(70, 35);
  const TestArray<std::int64_t> key_offsets = on_cpu_or_not<std::vector<std::int64_t>>(
      {0, 200, 200, 230, 231, 330}, {0, 50, 50, 58, 59, 84});
  const std::int64_t keys = key_offsets[5], rows = 5 * kQueries;
  std::mt19937 generator(4);
  const PackedTokens packed{kHeads, kDim};
  const auto random = [&](std::int64_t tokens) { return packed.random(tokens, generator); };
  const auto view = [&](const TestArray<BFloat16>& x) { return packed.on(x, stream); };
  const auto q = random(kQueries), k = random(keys), v = random(keys), d_out = random(rows);
  std::vector<std::vector<BFloat16>> expected;
  for (int run = 0; run < on_cpu_or_not(30, 2); ++run) {
    const BFloat16 nan(std::nanf(""));
    const TestArray<BFloat16> out(d_out.size(), nan), d_q(q.size(), nan), d_k(k.size(), nan);
    const TestArray<BFloat16> d_v(v.size(), nan);
    const TestArray<float> lse(kHeads * rows);
    AttentionForward forward;
    forward.q = view(q), forward.k = view(k), forward.v = view(v), forward.out = view(out);
    forward.lse = lse.on(stream), forward.key_offsets = key_offsets.on(stream);
    forward.num_shared_queries = kQueries;
    forward.num_heads = kHeads, forward.head_dim = kDim, forward.scale = 0.2f;
    const Stream& with_threads = threads(run % 4 + 1);
    poison_heap(std::int64_t{1} << on_cpu_or_not(22, 16), with_threads);
    jagged_attention_forward(forward, with_threads);
    jagged_attention_backward({forward, view(d_out), view(d_q), view(d_k), view(d_v)},
                              with_threads);
    const std::vector<std::vector<BFloat16>> results = {out.host(), d_q.host(), d_k.host(),
                                                        d_v.host()};
    if (run == 0) expected = results;
    for (std::size_t i = 0; i < results.size(); ++i) {
      ASSERT_EQ(
          std::memcmp(results[i].data(), expected[i].data(), results[i].size() * sizeof(BFloat16)),
          0);
    }
    for (const BFloat16 x : d_q.host()) ASSERT_TRUE(std::isfinite(static_cast<float>(x)));
  }
}

// Histories in chunks, sequences in parts, and hulls of columns, all of which a plan knows.
TEST_P(AttentionContract, APlanMadeBeforehandGivesTheSameBits) {
  std::mt19937 generator(6);
  Shape shape = sized(full_shape({300, 0, 2, 65}, {300, 7, on_cpu_or_not(1700, 300), 0}, 4, 20));
  shape.num_key_heads = 2;
  const TestMask mask = random_mask(MaskKind::kColumns, batch_of(shape), generator, stream);
  shape.mask = mask.mask;
  Case expected(shape, *this), c(shape, *this);
  expected.run();
  AttentionBackward args = c.backward_args();
  const AttentionPlan plan = plan_attention(args.forward, threads(3));
  args.forward.plan = &plan;
  for (const int num_threads : {1, 4}) {
    jagged_attention_forward(args.forward, threads(num_threads));
    jagged_attention_backward(args, threads(num_threads));
  }
  expect_same_results(expected, c);
}

// q, k and v, and their gradients, as views of one buffer [tokens, 3, heads, head_dim].
TEST_P(AttentionContract, PackedViewsOfOneBufferGiveTheSameBits) {
  const std::vector<std::int64_t> lengths = {on_cpu_or_not(130, 33), 0, on_cpu_or_not(65, 17), 1};
  constexpr std::int64_t kHeads = 2, kDim = 20, kRow = kHeads * kDim;
  Case c(causal_shape(lengths, lengths, kHeads, kDim), *this);
  c.run();
  const auto tokens = c.query_offsets.back() + kTokensAfter;
  const TestArray<float> qkv(tokens * 3 * kRow, std::nanf("")), d_qkv(qkv);
  const auto place = [&](int which, std::int64_t i) {
    return (i / kRow * 3 + which) * kRow + i % kRow;
  };
  const std::array inputs = {&c.q, &c.k, &c.v};
  for (int which = 0; which < 3; ++which) {
    inputs[which]->for_each([&](float& x, std::int64_t i) { qkv[place(which, i)] = x; });
  }
  Case packed(c);
  const auto view = [&](const TestArray<float>& buffer, int which) {
    return DeviceHeads<float>{buffer.on(stream).device_data() + which * kRow, 3 * kRow, kDim};
  };
  AttentionForward forward = packed.forward_args();
  forward.q = view(qkv, 0), forward.k = view(qkv, 1), forward.v = view(qkv, 2);
  jagged_attention_forward(forward, threads(2));
  jagged_attention_backward(
      {forward, packed.d_out.on(stream), view(d_qkv, 0), view(d_qkv, 1), view(d_qkv, 2)},
      threads(2));
  expect_same_bits(packed.out.values, c.out.values);
  std::int64_t written = 0;
  for (const float x : d_qkv.host()) written += !std::isnan(x);
  EXPECT_EQ(written, (c.query_offsets.back() - kTokensBefore) * 3 * kRow);
  const std::array gradients = {&c.d_q, &c.d_k, &c.d_v};
  for (int which = 0; which < 3; ++which) {
    gradients[which]->for_each(
        [&](float& x, std::int64_t i) { ASSERT_EQ(d_qkv[place(which, i)], x); });
  }
}

}  // namespace
}  // namespace serrate
