// Sequences that one block of Hopper's backward has, with d_q in registers: of up to 512 queries
// and keys (256 at head_dim 256), of more queries than have room with d_q in shared memory.
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

// As many queries and keys as there may be; a causal mask leaves the last keys to the last queries.
TEST_P(HopperBackward, LongestSequence) {
  Shape shape = causal_shape({512}, {512}, 1, 64);
  shape.gaps = kAlignedGaps;
  Case c(shape, *this);
  expect_whole(c, 1);
  expect_reference(c);
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
