// Sequences that one block of Hopper's backward has, with d_q in registers: of 257 to 512, 129 to
// 256 or 1 to 128 queries at head_dim 64, 128 or 256, and of more than 64 keys, up to 512 (256);
// and those of up to twice as many, at head_dim 128 and 256, that two blocks have.
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <tuple>

#include "tests/kernels/attention/distinct_masks.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

// So many sequences of a case, and so many in two blocks.
void expect_whole(Case& c, std::int64_t sequences, std::int64_t pairs = 0) {
  EXPECT_EQ(tasks_of(c).resident_wgmma, sequences * c.shape.num_key_heads);
  EXPECT_EQ(tasks_of(c).paired_wgmma, pairs * c.shape.num_key_heads);
}

// Queries that a block has, at most.
std::int64_t rows_of_block(std::int64_t head_dim) {
  return (32 << 10) / head_dim;
}

class HopperBackward : public KernelTest {
 protected:
  void SetUp() override {
    if (!has_wgmma(stream)) GTEST_SKIP() << "wgmma is sm_90's";
  }
};
INSTANTIATE_TEST_SUITE_P(Device, HopperBackward, testing::ValuesIn(test_devices()), device_name);

class HopperBackwardMasks : public KernelTestOver<MaskKind> {
 protected:
  void SetUp() override {
    if (!has_wgmma(stream)) GTEST_SKIP() << "wgmma is sm_90's";
  }
};
INSTANTIATE_TEST_SUITE_P(All, HopperBackwardMasks,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::ValuesIn(kDistinctMasks)),
                         name_of_mask);

TEST_P(HopperBackwardMasks, MatchTheReference) {
  const MaskKind kind = param();
  std::mt19937 generator(static_cast<unsigned>(kind));
  Shape shape = causal_shape({90, 20, 150}, {100, 20, 160}, 1, 256);
  if (kind >= MaskKind::kDocuments) shape.key_lengths = shape.query_lengths;
  shape.gaps = kAlignedGaps;
  const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
  Case c = masked_case(shape, mask, *this);
  expect_whole(c, 1, 1);
  expect_reference(c);
}

// Ragged ends; more keys than queries and fewer; heads that share keys, of which a block has all.
TEST_P(HopperBackward, EveryHeadDimActivationAndType) {
  struct Entry {
    std::int64_t head_dim;
    AttentionActivation activation;
    DataType half;
    std::int64_t heads, pairs;
  };
  const auto softmax = AttentionActivation::kSoftmax, silu = AttentionActivation::kSilu;
  for (const auto& [head_dim, activation, half, heads, pairs] :
       {Entry{64, softmax, DataType::kBFloat16, 1, 0}, Entry{64, silu, DataType::kFloat16, 2, 0},
        Entry{128, silu, DataType::kBFloat16, 1, 0}, Entry{256, softmax, DataType::kFloat16, 2, 0},
        Entry{128, softmax, DataType::kFloat16, 1, 1}, Entry{128, silu, DataType::kBFloat16, 4, 1},
        Entry{256, silu, DataType::kFloat16, 1, 1},
        Entry{256, softmax, DataType::kBFloat16, 2, 1}}) {
    SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << ", heads " << heads);
    // Behind half of what there is room for.
    const std::int64_t queries = (pairs + 1) * rows_of_block(head_dim) / 2 / heads + 1;
    Shape shape = full_shape({queries, 20, 0}, {101, 31, 70}, heads, head_dim);
    shape.num_key_heads = 1;
    shape.activation = activation;
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    expect_whole(c, 1 - pairs, pairs);
    expect_reference(c, Backward::kOnTensorCores, half);
  }
}

TEST_P(HopperBackward, BiasesTablesAndDropout) {
  for (const auto& [head_dim, pairs] : {std::pair{64, 0}, {128, 0}, {256, 0}, {128, 1}, {256, 1}}) {
    const std::int64_t queries = (pairs + 1) * rows_of_block(head_dim) / 2 + 1;
    Shape shape = causal_shape({queries, 20}, {70, 31}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    Biases biases(c);
    set_dropout(c);
    expect_whole(c, 1 - pairs, pairs);
    expect_reference(c, Backward::kOnTensorCores, DataType::kBFloat16, &biases);
  }
}

// As many queries as there may be; a causal mask leaves the last keys to the last queries.
TEST_P(HopperBackward, LongestSequence) {
  for (const auto& [head_dim, pairs] : {std::pair{64, 0}, {128, 0}, {256, 0}, {128, 1}, {256, 1}}) {
    SCOPED_TRACE(testing::Message() << "head_dim " << head_dim);
    const std::int64_t length = (pairs + 1) * rows_of_block(head_dim);
    Shape shape = causal_shape({length}, {length}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    expect_whole(c, 1 - pairs, pairs);
    expect_reference(c);
  }
}

// Heads that share keys have tiles of 64 queries of their own.
TEST_P(HopperBackward, TakesSequencesByTheirLengths) {
  struct Entry {
    std::int64_t head_dim, queries, keys, heads, key_heads, tasks, pairs;
  };
  const Entry entries[] = {
      {64, 256, 65, 1, 1, 0, 0},   {64, 257, 65, 1, 1, 1, 0},   {64, 512, 512, 1, 1, 1, 0},
      {64, 513, 512, 1, 1, 0, 0},  {64, 512, 513, 1, 1, 0, 0},  {64, 512, 64, 1, 1, 0, 0},
      {128, 128, 65, 1, 1, 0, 0},  {128, 129, 65, 1, 1, 1, 0},  {128, 256, 512, 1, 1, 1, 0},
      {128, 257, 512, 1, 1, 0, 1}, {128, 256, 513, 1, 1, 0, 0}, {128, 256, 64, 1, 1, 0, 0},
      {128, 257, 65, 1, 1, 0, 1},  {128, 512, 512, 1, 1, 0, 1}, {128, 513, 512, 1, 1, 0, 0},
      {128, 512, 513, 1, 1, 0, 0}, {128, 512, 64, 1, 1, 0, 0},  {256, 0, 65, 1, 1, 0, 0},
      {256, 1, 65, 1, 1, 1, 0},    {256, 128, 256, 1, 1, 1, 0}, {256, 129, 256, 1, 1, 0, 1},
      {256, 128, 257, 1, 1, 0, 0}, {256, 128, 64, 1, 1, 0, 0},  {256, 256, 65, 1, 1, 0, 1},
      {256, 256, 256, 1, 1, 0, 1}, {256, 257, 256, 1, 1, 0, 0}, {256, 256, 257, 1, 1, 0, 0},
      {64, 64, 65, 4, 1, 0, 0},    {64, 65, 65, 4, 1, 1, 0},    {64, 128, 65, 8, 2, 2, 0},
      {64, 129, 65, 4, 1, 0, 0},   {128, 128, 65, 8, 2, 0, 2},  {128, 129, 65, 4, 1, 0, 0},
      {256, 64, 65, 2, 1, 1, 0},   {256, 65, 65, 2, 1, 0, 1},   {256, 129, 65, 2, 1, 0, 0}};
  for (const Entry& e : entries) {
    SCOPED_TRACE(testing::Message() << "head_dim " << e.head_dim << ", " << e.queries << " x "
                                    << e.keys << ", heads " << e.heads << " of " << e.key_heads);
    Inputs inputs;
    AttentionForward call;
    call.query_offsets = inputs.on<std::int64_t>(stream, {0, e.queries});
    call.key_offsets = inputs.on<std::int64_t>(stream, {0, e.keys});
    call.num_heads = e.heads, call.num_key_heads = e.key_heads, call.head_dim = e.head_dim;
    EXPECT_EQ(tasks_of(call, stream).resident_wgmma, e.tasks);
    EXPECT_EQ(tasks_of(call, stream).paired_wgmma, e.pairs);
    if (e.tasks + e.pairs == 0) continue;
    call.query_offsets = {}, call.num_shared_queries = e.queries;
    EXPECT_EQ(tasks_of(call, stream).resident_wgmma, 0);
    EXPECT_EQ(tasks_of(call, stream).paired_wgmma, 0);
  }
}

// More pairs of a sequence and a head of keys than there are blocks, or clusters.
TEST_P(HopperBackward, SequencesOneAfterTheOther) {
  for (const auto& [queries, heads, pairs] : {std::tuple{10, 9, 0}, {130, 5, 1}}) {
    Shape shape = causal_shape({queries}, {66}, heads, 256);
    shape.gaps = kAlignedGaps;
    Case c(with_enough_heads(stream, shape), *this);
    expect_whole(c, 1 - pairs, pairs);
    expect_reference(c);
  }
}

// A plan does not know how d_out lies: of one head, it may have no stride that copies could take.
TEST_P(HopperBackward, PlansOfCallsWhoseGradientsBulkCopiesCannotTake) {
  Shape shape = causal_shape({260}, {70}, 1, 64);
  shape.gaps = kAlignedGaps;
  Case c(shape, *this);
  std::optional<AttentionPlan> plan;
  run_halves(c, Backward::kOnTensorCores, DataType::kBFloat16, [&](AttentionBackward& call) {
    plan = plan_attention(call.forward, stream);
    call.forward.plan = &*plan;
    call.d_out.head_stride = 0;
    // The plan's list is for the other choice of backward.
    EXPECT_EQ(jagged_attention_backward_workspace(call, stream),
              CudaAttentionPlan::size(1) * static_cast<std::int64_t>(sizeof(std::int64_t)));
  });
  expect_gradients(c);
}

TEST_P(HopperBackward, BitsDoNotDependOnTheRestOfTheBatch) {
  for (const auto& [head_dim, pairs] : {std::pair{64, 0}, {256, 0}, {128, 1}}) {
    const std::int64_t queries = (pairs + 1) * rows_of_block(head_dim) / 2 + 1;
    Shape shape = full_shape({queries, 20, queries + 9}, {66, 20, 97}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case batch(shape, *this);
    expect_whole(batch, 2 - 2 * pairs, 2 * pairs);
    run_halves(batch);
    expect_same_sequences(batch, {2, 1}, 1);
    expect_same_sequences(batch, {0});
  }
}

// Below -87.3 a SiLU weight and its derivative are 0, and the gradient of the weight need not have
// a value: here it is infinite or NaN, of key 3. (Of 64 queries: what fills a tile up is no such
// score, and would make NaN of that key's d_k.)
TEST_P(HopperBackward, SiluOfVerySmallScoresHasNoGradient) {
  for (const std::int64_t head_dim : {64, 256}) {  // by mma.sync, and by wgmma
    SCOPED_TRACE(head_dim);
    Shape shape = full_shape({64}, {70}, 1, head_dim);
    shape.activation = AttentionActivation::kSilu;
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    c.scale = 1;
    const std::int64_t query = c.query_offsets[0], key = c.key_offsets[0];
    for (std::int64_t i = 0; i < 64; ++i) c.q.at(query + i, 0)[0] = 32;
    for (std::int64_t j = 0; j < 70; ++j) c.k.at(key + j, 0)[0] = j == 3 ? -32 : 0;
    std::fill_n(c.v.at(key + 3, 0), head_dim, kInfinity);
    expect_whole(c, head_dim == 256 ? 1 : 0);
    run_halves(c);
    std::int64_t others = 0;
    for (Tokens* x : {&c.d_q, &c.d_k, &c.d_v}) {
      x->for_each([&](float& value, std::int64_t) { others += std::isfinite(value) ? 0 : 1; });
    }
    EXPECT_EQ(others, 0);
  }
}

}  // namespace
}  // namespace serrate
