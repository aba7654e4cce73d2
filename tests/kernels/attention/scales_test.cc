// Scales of scores of any sign and size in 16 and in 8 bits, where softmax takes products as they
// are and scales them in its exponent.
#include <gtest/gtest.h>

#include "tests/kernels/attention/fp8_case.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {
namespace {

// With the last, scores of a query grow from one tile of keys to the next by less than what its
// sums may stay as they are for, and by more.
constexpr float kScales[] = {-0.2f, 0, 0.4f};

class AttentionScales : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionScales, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionScales, OfAnySignAndSize) {
  Shape of_mma = causal_shape({140, 20}, {140, 31}, 1, 32);
  Shape of_wgmma = full_shape({20}, {300}, 1, 256);
  for (Shape shape : {of_mma, of_wgmma}) {
    for (const float scale : kScales) {
      SCOPED_TRACE(testing::Message() << "head_dim " << shape.head_dim << ", scale " << scale);
      shape.gaps = kAlignedGaps;
      Case c(shape, *this);
      c.scale = scale;
      expect_reference(c);
    }
  }
}

TEST_P(AttentionScales, OfAnySignAndSizeInE4m3) {
  for (Shape shape : {causal_shape({70}, {130}, 1, 64), full_shape({20}, {300}, 1, 256)}) {
    for (const float scale : kScales) {
      SCOPED_TRACE(testing::Message() << "head_dim " << shape.head_dim << ", scale " << scale);
      shape.gaps = kAlignedGaps;
      Case c(shape, *this);
      c.scale = scale;
      Fp8Case fp8(c);
      expect_reference(fp8);
    }
  }
}

// Scales of e4m3 are the caller's: one that is no number reaches all queries that see its keys.
TEST_P(AttentionScales, NanOfKeysInE4m3IsNotLost) {
  for (Shape shape : {full_shape({20}, {130}, 1, 64), full_shape({20}, {300}, 1, 256)}) {
    SCOPED_TRACE(testing::Message() << "head_dim " << shape.head_dim);
    shape.gaps = kAlignedGaps;
    Case c(shape, *this);
    Fp8Case fp8(c);
    fp8.k.scales[fp8.k.scale_of(c.key_offsets, 0, c.key_offsets[0] + 64, 0)] = kNan;
    fp8.run();
    std::int64_t numbers = 0;
    c.out.for_each([&](float& x, std::int64_t) { numbers += std::isnan(x) ? 0 : 1; });
    EXPECT_EQ(numbers, 0);
  }
}

}  // namespace
}  // namespace serrate
