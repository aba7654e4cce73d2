#include <gtest/gtest.h>

#include <vector>

#include "tests/kernels/attention/case.h"

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

}  // namespace
}  // namespace serrate
