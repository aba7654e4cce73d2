// Sequences that one block of Hopper's backward has, with d_q in registers: of 257 to 512, 129 to
// 256 or 1 to 128 queries at head_dim 64, 128 or 256, and of more than 64 keys, up to 512 (256).
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <tuple>

#include "tests/kernels/attention/masks.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

// So many sequences of a case.
void expect_whole(Case& c, std::int64_t sequences) {
  EXPECT_EQ(tasks_of(c).resident_wgmma, sequences * c.shape.num_key_heads);
}

class HopperBackward : public KernelTest {
 protected:
  void SetUp() override {
    if (!has_wgmma(stream)) GTEST_SKIP() << "wgmma is sm_90's";
  }
};
INSTANTIATE_TEST_SUITE_P(Device, HopperBackward, testing::ValuesIn(test_devices()), device_name);

class HopperBackwardMasks : public KernelTestOver<int> {
 protected:
  void SetUp() override {
    if (!has_wgmma(stream)) GTEST_SKIP() << "wgmma is sm_90's";
  }
};
INSTANTIATE_TEST_SUITE_P(All, HopperBackwardMasks,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Range(0,
                                                         static_cast<int>(MaskKind::kHstu) + 1)));

TEST_P(HopperBackwardMasks, MatchTheReference) {
  std::mt19937 generator(static_cast<unsigned>(param()));
  const auto kind = static_cast<MaskKind>(param());
  Shape shape = causal_shape({90, 20}, {100, 20}, 1, 256);
  if (kind >= MaskKind::kDocuments) shape.key_lengths = shape.query_lengths;
  shape.gaps = kAlignedGaps;
  const TestMask mask = random_mask(kind, batch_of(shape), generator, stream);
  Case c = masked_case(shape, mask, *this);
  expect_whole(c, 1);
  expect_reference(c);
}

// Ragged ends; more keys than queries and fewer; heads that share keys, of which a block has all.
TEST_P(HopperBackward, EveryHeadDimActivationAndType) {
  for (const auto& [head_dim, activation, half, heads] :
       {std::tuple{64, AttentionActivation::kSoftmax, DataType::kBFloat16, 1},
        {64, AttentionActivation::kSilu, DataType::kFloat16, 2},
        {128, AttentionActivation::kSilu, DataType::kBFloat16, 1},
        {256, AttentionActivation::kSoftmax, DataType::kFloat16, 2}}) {
    SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << ", heads " << heads);
    // Behind half of what a block has.
    const std::int64_t queries = (16 << 10) / head_dim / heads + 1;
    Shape shape = full_shape({queries, 20, 0}, {101, 31, 70}, heads, head_dim);
    shape.num_key_heads = 1;
    shape.activation = activation;
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    expect_whole(c, 1);
    expect_reference(c, Backward::kOnTensorCores, half);
  }
}

TEST_P(HopperBackward, BiasesTablesAndDropout) {
  for (const std::int64_t head_dim : {64, 128, 256}) {
    Shape shape = causal_shape({(16 << 10) / head_dim + 1, 20}, {70, 31}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    Biases biases(c);
    set_dropout(c);
    expect_whole(c, 1);
    expect_reference(c, Backward::kOnTensorCores, DataType::kBFloat16, &biases);
  }
}

// As many queries as there may be; a causal mask leaves the last keys to the last queries.
TEST_P(HopperBackward, LongestSequence) {
  for (const std::int64_t head_dim : {64, 128, 256}) {
    SCOPED_TRACE(testing::Message() << "head_dim " << head_dim);
    const std::int64_t length = (32 << 10) / head_dim;
    Shape shape = causal_shape({length}, {length}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    expect_whole(c, 1);
    expect_reference(c);
  }
}

// Heads that share keys have tiles of 64 queries of their own.
TEST_P(HopperBackward, TakesSequencesByTheirLengths) {
  struct Entry {
    std::int64_t head_dim, queries, keys, heads, key_heads, tasks;
  };
  const Entry entries[] = {
      {64, 256, 65, 1, 1, 0},   {64, 257, 65, 1, 1, 1},   {64, 512, 512, 1, 1, 1},
      {64, 513, 512, 1, 1, 0},  {64, 512, 513, 1, 1, 0},  {64, 512, 64, 1, 1, 0},
      {128, 128, 65, 1, 1, 0},  {128, 129, 65, 1, 1, 1},  {128, 256, 512, 1, 1, 1},
      {128, 257, 512, 1, 1, 0}, {128, 256, 513, 1, 1, 0}, {128, 256, 64, 1, 1, 0},
      {256, 0, 65, 1, 1, 0},    {256, 1, 65, 1, 1, 1},    {256, 128, 256, 1, 1, 1},
      {256, 129, 256, 1, 1, 0}, {256, 128, 257, 1, 1, 0}, {256, 128, 64, 1, 1, 0},
      {64, 64, 65, 4, 1, 0},    {64, 65, 65, 4, 1, 1},    {64, 128, 65, 8, 2, 2},
      {64, 129, 65, 4, 1, 0},   {256, 64, 65, 2, 1, 1},   {256, 65, 65, 2, 1, 0}};
  for (const Entry& e : entries) {
    SCOPED_TRACE(testing::Message() << "head_dim " << e.head_dim << ", " << e.queries << " x "
                                    << e.keys << ", heads " << e.heads << " of " << e.key_heads);
    Shape shape = causal_shape({e.queries}, {e.keys}, e.heads, e.head_dim);
    shape.num_key_heads = e.key_heads;
    Case c(shape, *this);
    EXPECT_EQ(tasks_of(c).resident_wgmma, e.tasks);
    if (e.tasks == 0) continue;
    AttentionForward shared = c.forward_args();
    shared.q = {}, shared.query_offsets = {}, shared.num_shared_queries = e.queries;
    EXPECT_EQ(tasks_of(shared, stream).resident_wgmma, 0);
  }
}

// More pairs of a sequence and a head of keys than there are blocks.
TEST_P(HopperBackward, SequencesOneAfterTheOther) {
  Shape shape = causal_shape({10}, {66}, 9, 256);
  shape.gaps = kAlignedGaps;
  Case c(with_enough_heads(stream, shape), *this);
  expect_whole(c, 1);
  expect_reference(c);
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
  for (const std::int64_t head_dim : {64, 256}) {
    const std::int64_t queries = (16 << 10) / head_dim + 1;
    Shape shape = full_shape({queries, 20, queries + 9}, {66, 20, 97}, 1, head_dim);
    shape.gaps = kAlignedGaps;
    Case batch(shape, *this);
    expect_whole(batch, 2);
    run_halves(batch);
    expect_same_sequences(batch, {2, 0, 1}, 1);
    expect_same_sequences(batch, {0});
  }
}

}  // namespace
}  // namespace serrate
