// Dropout of weights; on tensor cores with biases and tables, whose kernels are the same.
#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

class AttentionDropout : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionDropout, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionDropout, DropsTheWeightsThatItsCounterSays) {
  for (const AttentionActivation activation :
       {AttentionActivation::kSoftmax, AttentionActivation::kSilu}) {
    Shape shape = sized(causal_shape({130, 0, 97, 30}, {150, 5, 97, 7}, 2, 24));
    shape.activation = activation;
    Case c(shape, *this);
    c.token_ids.resize(c.query_offsets.back());
    for (std::size_t i = 0; i < c.token_ids.size(); ++i) {
      c.token_ids[i] = static_cast<std::int64_t>(i * 7) << (i % 2 == 0 ? 0 : 33);
    }
    c.dropout = {.rate = 0.25f, .seed = 5, .step = 3, .site = 11};
    const reference::Attention args = c.in_double();
    c.kept_of_pairs = kept_of(c, args);
    expect_matches_reference(c, 2e-6);
  }
}

class TensorCoreExtras : public KernelTestOver<AttentionActivation> {
 protected:
  // Some with several tiles of queries and keys, which blocks take whole.
  Case make_case(std::int64_t num_heads) {
    Shape shape = causal_shape({20, 67, 3}, {20, 70, 80}, num_heads, 32);
    shape.num_key_heads = 4;
    shape.activation = param();
    shape.gaps = kAlignedGaps;
    Case c(with_enough_heads(stream, shape), *this);
    if (stream.device().type != DeviceType::kCpu) {
      EXPECT_EQ(tasks_of(c).resident, 2 * c.shape.num_key_heads);
    }
    return c;
  }
};
INSTANTIATE_TEST_SUITE_P(All, TensorCoreExtras,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(AttentionActivation::kSoftmax,
                                                          AttentionActivation::kSilu)));

TEST_P(TensorCoreExtras, DropoutOfHeadsThatShareKeys) {
  Case c = make_case(8);
  set_dropout(c);
  expect_reference(c);
}

// Biases and tables that have gradients, and those that have none, with dropout.
TEST_P(TensorCoreExtras, BiasesAndTables) {
  Case c = make_case(4);
  Biases biases(c);
  set_dropout(c);
  expect_reference(c, Backward::kOnTensorCores, DataType::kBFloat16, &biases);
  c.d_bias = nullptr, c.d_position_table = {}, c.d_time_table = {};
  expect_reference(c);
}

class TensorCoreWideHeads : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, TensorCoreWideHeads, testing::ValuesIn(test_devices()),
                         device_name);

TEST_P(TensorCoreWideHeads, BiasesTablesAndDropout) {
  for (const std::int64_t head_dim : {64, 128, 256}) {
    Shape shape = causal_shape({67}, {70}, 2, head_dim);
    shape.num_key_heads = 1;
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    Biases biases(c);
    set_dropout(c);
    expect_reference(c, Backward::kOnTensorCores, DataType::kFloat16, &biases);
  }
}

}  // namespace
}  // namespace serrate
