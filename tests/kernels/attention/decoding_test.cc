// Few queries over long histories, whose heads are rows of one tile and whose keys are cut into
// chunks.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "tests/kernels/attention/decoding_case.h"
#include "tests/kernels/attention/masks.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

// Keys of the longest history that is not cut, and those of a length on the CPU, in whose place
// other devices have a third: there a chunk is as much shorter.
std::int64_t chunk() {
  return on_cpu_or_not<std::int64_t>(768, 256);
}
std::int64_t length(std::int64_t on_cpu) {
  return on_cpu_or_not(on_cpu, (on_cpu + 2) / 3);
}

Shape pairs_of_lengths(const std::vector<std::int64_t>& queries,
                       const std::vector<std::int64_t>& keys) {
  Shape shape = full_shape({}, {}, 1, 4);
  for (const std::int64_t q : queries) {
    for (const std::int64_t k : keys) {
      shape.query_lengths.push_back(q);
      shape.key_lengths.push_back(k);
    }
  }
  return shape;
}

// Three chunks, one, none; 1 to 7 queries; one of them in each case has few rows.
const std::vector<std::int64_t> kQueries = {2, 7, 1, 5};
std::vector<std::int64_t> few_queries_keys() {
  return {length(1700), length(900), length(130), 0};
}

Shape few_queries(std::int64_t num_heads, std::int64_t num_key_heads) {
  Shape shape = full_shape(kQueries, few_queries_keys(), num_heads, 16);
  shape.num_key_heads = num_key_heads;
  return shape;
}

std::int64_t partials_of(Case& c) {
  return plan_attention(c.forward_args(), c.streams.stream).num_partials();
}

class AttentionDecoding : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionDecoding, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionDecoding, AllPairsOfLengthsMatchTheReference) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    Shape shape =
        on_cpu_or_not(pairs_of_lengths({0, 1, 2, 7, 16, 17, 64, 96, 97},
                                       {0, 1, 95, 96, 97, chunk() - 1, chunk(), chunk() + 1, 2310}),
                      pairs_of_lengths({0, 1, 17}, {0, 1, chunk(), chunk() + 1, 600}));
    shape.activation = activation;
    Case c(shape, *this);
    expect_matches_reference(c, 4e-6);
  }
}

TEST_P(AttentionDecoding, HeadsAndDimensionsMatchTheReference) {
  struct Size {
    std::int64_t num_heads, num_key_heads, head_dim;
  };
  const std::vector<Size> all = {{8, 1, 64},   {4, 4, 64},  {6, 3, 20},  {3, 1, 1},
                                 {12, 12, 48}, {2, 2, 255}, {8, 8, 256}, {20, 2, 33}};
  for (const Size& size :
       on_cpu_or_not(all, std::vector<Size>{{6, 3, 20}, {3, 1, 1}, {1, 1, 255}})) {
    Shape shape = full_shape({1, 3}, {length(900), length(100)}, size.num_heads, size.head_dim);
    shape.num_key_heads = size.num_key_heads;
    Case c(shape, *this);
    expect_matches_reference(c, 4e-6);
  }
}

TEST_P(AttentionDecoding, HugeLogitsNeitherOverflowNorVanish) {
  Case c(full_shape({1, 20}, {length(2000), length(1000)}, 2, 32), *this, 1e4f);
  const reference::AttentionOutput expected = reference::attention_forward(c.in_double());
  c.run();
  expect_close(c.out, expected.out, 5e-3);  // a score of 2e4 is good to 1e-3
}

class EveryDecodingMask : public KernelTestOver<int> {};

TEST_P(EveryDecodingMask, MatchesTheReference) {
  const auto kind = static_cast<MaskKind>(param());
  std::mt19937 generator(static_cast<unsigned>(param()));
  for (const std::int64_t num_key_heads : {1, 3}) {
    for (const AttentionActivation activation :
         {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
      const bool is_one_of_four =
          (num_key_heads == 1) == (param() % 2 == 0) &&
          (activation == AttentionActivation::kSoftmax) == (param() % 4 < 2);
      if (!on_cpu_or_not(true, is_one_of_four)) continue;
      Shape shape = few_queries(on_cpu_or_not(6, 3), num_key_heads);
      if (!tests_run_on_devices()) {
        shape.query_lengths.push_back(30), shape.key_lengths.push_back(1000);
      }
      shape.activation = activation;
      const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
      Case c = masked_case(shape, mask, *this);
      expect_matches_reference(c, 4e-6);
    }
  }
}

std::string name_of_decoding(const testing::TestParamInfo<EveryDecodingMask::ParamType>& test) {
  return to_string(static_cast<MaskKind>(std::get<1>(test.param)));
}

// Those of self-attention have as many queries as keys.
INSTANTIATE_TEST_SUITE_P(All, EveryDecodingMask,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Range(0,
                                                         static_cast<int>(MaskKind::kDocuments))),
                         name_of_decoding);

// Query 0 sees nothing, query 1 the second chunk alone, query 2 only the first key of all.
TEST_P(AttentionDecoding, ChunksThatAQueryDoesNotSeeCountForNothing) {
  Shape shape = full_shape({3}, {length(2000)}, 2, 16);
  std::vector<std::int64_t> ranges((kTokensBefore + 3) * 4, 0);
  const auto see = [&](std::int64_t query, std::int64_t begin, std::int64_t end) {
    ranges[(kTokensBefore + query) * 4] = begin, ranges[(kTokensBefore + query) * 4 + 1] = end;
  };
  see(1, chunk(), 2 * chunk() - chunk() / 8), see(2, 0, 1);
  shape.visible = [&](std::int64_t, std::int64_t i, std::int64_t j) {
    const std::int64_t* range = &ranges[(kTokensBefore + i) * 4];
    return range[0] <= j && j < range[1];
  };
  Case c(shape, *this);
  c.shape.mask = RowMask{c.input(ranges)};
  expect_matches_reference(c, 4e-6);
  for (std::int64_t head = 0; head < 2; ++head) {
    for (std::int64_t x = 0; x < 16; ++x) {
      EXPECT_EQ(c.out.at(kTokensBefore, head)[x], 0);
      EXPECT_FLOAT_EQ(c.out.at(kTokensBefore + 2, head)[x], c.v.at(kTokensBefore, head)[x]);
    }
  }
}

// A bias, tables and dropout at once; groups of heads share keys.
TEST_P(AttentionDecoding, BiasesTablesAndDropoutMatchTheReference) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    Shape shape = few_queries(4, 2);
    if (!tests_run_on_devices()) shape.query_lengths.back() = 20, shape.key_lengths.back() = 800;
    shape.activation = activation;
    Case c(shape, *this);
    const Biases biases(c);
    c.d_bias = nullptr, c.d_position_table = {}, c.d_time_table = {};
    set_dropout(c);
    expect_matches_reference(c, 6e-6);
  }
}

TEST_P(AttentionDecoding, SharedQueriesGiveWhatCopiesOfThemGive) {
  constexpr std::int64_t kShared = 3, kHeads = 2, kDim = 16;
  const std::vector<std::int64_t> keys = {length(1500), 0, 40, length(800)};
  Case c(full_shape(std::vector<std::int64_t>(keys.size(), kShared), keys, kHeads, kDim), *this);
  const std::int64_t first = kTokensBefore * kHeads * kDim, size = kShared * kHeads * kDim;
  const TestArray<float> shared(size);
  c.q.for_each([&](float& x, std::int64_t i) {
    if (i - first < size) shared[i - first] = x;
    x = shared[(i - first) % size];
  });
  c.run();
  Tokens out(c.out);
  AttentionForward args = c.forward_args();
  args.q = DeviceHeads<float>{shared.on(stream).device_data(), kHeads * kDim, kDim};
  args.out = out.on(stream, kTokensBefore);
  args.lse = {};
  args.query_offsets = {};
  args.num_shared_queries = kShared;
  jagged_attention_forward(args, threads(2));
  expect_same_bits(out.values, c.out.values);
}

TEST_P(AttentionDecoding, BitsDoNotDependOnThreadsOrRunsOrWhoOwnsThePartials) {
  Shape shape = few_queries(4, 2);
  if (!tests_run_on_devices()) {
    shape.query_lengths.push_back(60), shape.key_lengths.push_back(2500);
  }
  Case one(shape, *this);
  one.run();
  TestArray<float> partials(partials_of(one) + 5, std::nanf(""));
  for (int run = 0; run < on_cpu_or_not(30, 2); ++run) {
    Case again(shape, *this);
    again.partials = run % 2 == 0 ? nullptr : &partials;
    again.run(run % 3 + 1);
    expect_same_results(one, again);
  }
  EXPECT_TRUE(std::isnan(partials.host().back()) && !std::isnan(partials.host().front()));
}

TEST_P(AttentionDecoding, BitsOfASequenceDoNotDependOnTheRestOfTheBatch) {
  Case batch(few_queries(4, 2), *this);
  batch.run(2);
  for (std::size_t s = 0; s < kQueries.size(); ++s) {
    expect_same_alone(batch, s, Stored::kAsFloat32);
  }
}

TEST_P(AttentionDecoding, PartialsThatAreTooSmallAreAnError) {
  Case c(few_queries(4, 2), *this);
  const std::int64_t needed = partials_of(c);
  TestArray<float> too_small(needed - 1), partials(needed);
  c.partials = &too_small;
  EXPECT_THROW(c.run(), Error);
  c.partials = &partials;
  EXPECT_NO_THROW(c.run());
}

// By plain kernels, on tensor cores, and there with more shared queries than plain kernels
// take.
TEST_P(AttentionDecoding, WorkspaceHasPartialsThatTheCallerDoesNotOwn) {
  const auto expect_counted = [&](AttentionForward args) {
    const std::int64_t without = jagged_attention_forward_workspace(args, stream);
    const TestArray<float> partials(plan_attention(args, stream).num_partials());
    args.partials = partials.on(stream);
    EXPECT_GT(partials.size(), 0);
    EXPECT_EQ(without - jagged_attention_forward_workspace(args, stream), partials.size() * 4);
  };
  Shape shape = few_queries(4, 2);
  shape.head_dim = 32, shape.gaps = kAlignedGaps;
  Case c(shape, *this);
  expect_counted(c.forward_args());
  constexpr DataType kHalf = DataType::kBFloat16;
  StoredTokens q(c.q, kHalf), k(c.k, kHalf), v(c.v, kHalf), out(c.out, kHalf);
  AttentionForward args = c.forward_args();
  args.q = q.on(stream), args.k = k.on(stream), args.v = v.on(stream), args.out = out.on(stream);
  expect_counted(args);
  args.query_offsets = {}, args.lse = {};
  args.num_shared_queries = 40;  // 80 rows
  expect_counted(args);
}

// Candidates of a head_dim that tensor cores never take: the list has none of them, which would
// leave few rows less room for partials.
TEST_P(AttentionDecoding, CandidatesThatNeverDecodeAreNotListed) {
  if (stream.device().type == DeviceType::kCpu) return;
  Shape shape = full_shape({1, 17}, {520, 1100}, 4, 48);
  shape.num_key_heads = 1;
  Case c(shape, *this);
  EXPECT_EQ(tasks_of(c).decoding, 3);
}

TEST(AttentionChunks, AreOfWhatIsLongerThanOne) {
  constexpr std::int64_t kChunk = 768, kTile = 96;  // keys, and queries of the widest tile
  const std::int64_t row = 3 * (8 + 2);             // of 3 heads: head_dim, maximum, sum
  TestStreams host(Device::cpu());
  const auto partials = [&](std::int64_t queries, std::int64_t keys) {
    Case c(full_shape({queries, 4}, {keys, 4}, 3, 8), host);
    return partials_of(c);
  };
  EXPECT_EQ(partials(1, kChunk), 0);
  EXPECT_EQ(partials(1, kChunk + 1), 2 * row);
  EXPECT_EQ(partials(kTile, 3 * kChunk), kTile * 3 * row);
  EXPECT_EQ(partials(kTile + 1, 3 * kChunk), 0);
  EXPECT_EQ(partials(0, 3 * kChunk), 0);
}

}  // namespace
}  // namespace serrate
