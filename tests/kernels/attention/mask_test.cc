#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "tests/kernels/attention/biases.h"
#include "tests/kernels/attention/masks.h"

namespace serrate {
namespace {

constexpr MaskKind kLastKind = MaskKind::kHstu;

class EveryMask : public KernelTestOver<int> {
 protected:
  MaskKind kind() const { return static_cast<MaskKind>(param()); }
  // Several tiles each way.
  Shape shape() const {
    Shape result = on_cpu_or_not<Shape>({{200, 0, 97, 30, 330}, {150, 5, 200, 0, 350}, 2, 16},
                                        {{40, 0, 17, 3, 33}, {35, 5, 50, 0, 20}, 2, 16});
    if (kind() >= MaskKind::kDocuments) result.key_lengths = result.query_lengths;
    return result;
  }
};

TEST_P(EveryMask, MatchesTheReferenceOverSeveralTiles) {
  std::mt19937 generator(static_cast<unsigned>(param()));
  for (int i = 0; i < on_cpu_or_not(3, 1); ++i) {
    const TestMask mask = random_mask(kind(), batch_of(shape()), generator, stream);
    Case c = masked_case(shape(), mask, *this);
    expect_matches_reference(c, 2e-6);
  }
}

// Which tiles are computed, and in what order, follows from the mask and not from how it is told.
TEST_P(EveryMask, HasTheValuesOfTheSameMaskInBits) {
  std::mt19937 generator(11);
  const TestMask mask = random_mask(kind(), batch_of(shape()), generator, stream);
  const TestMask bits = as_bits(mask, batch_of(shape()), stream);
  Case a = masked_case(shape(), mask, *this), b = masked_case(shape(), bits, *this);
  a.run();
  b.run(16);  // in parts
  if (kind() > MaskKind::kCausalBottomRight) {
    expect_same_results(a, b);
    return;
  }
  // Bands add up the same terms and other zeros: 0 may be -0.
  const auto of_a = results(a), of_b = results(b);
  for (std::size_t i = 0; i < of_a.size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(of_a[i], of_b[i], [](float x, float y) {
      return x == y || (std::isnan(x) && std::isnan(y));
    }));
  }
}

std::string name_of(const testing::TestParamInfo<EveryMask::ParamType>& info) {
  return to_string(static_cast<MaskKind>(std::get<1>(info.param)));
}

INSTANTIATE_TEST_SUITE_P(All, EveryMask,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Range(0, static_cast<int>(kLastKind) + 1)),
                         name_of);

// Any mask with any option, and a history that is long for its queries at times.
class RandomBatches {
 public:
  RandomBatches(unsigned seed, TestStreams& streams) : generator_(seed), streams_(streams) {}

  // Batches of which most of the time goes to the edges.
  void expect_reference(int i) {
    const auto kind = static_cast<MaskKind>(draw(0, static_cast<std::int64_t>(kLastKind)));
    const Shape shape = shape_for(kind, i % 500 == 0  ? on_cpu_or_not(150, 40)
                                        : i % 10 == 0 ? 24
                                                      : 8);
    const TestMask mask = random_mask(kind, batch_of(shape), generator_, streams_.stream);
    Case c = masked_case(shape, mask, streams_);
    std::optional<Biases> biases;
    if (draw(0, 2) == 0) biases.emplace(c);
    if (draw(0, 2) == 0) {
      c.token_ids = ids_of_tokens(c);
      c.dropout = {.rate = 0.3f, .seed = generator_()};
      c.kept_of_pairs = kept_of(c, c.in_double());
    }
    c.run(i % 100 == 0 ? 3 : 1);
    SCOPED_TRACE(testing::Message() << "batch " << i << ", mask " << static_cast<int>(kind));
    expect_values_of_reference(c, 5e-5);
    if (!biases) return;
    const auto exact =
        biases->gradients(c, reference::attention_backward(c.in_double(), c.d_out.dense()).d_bias);
    const std::span<const float> actual[] = {biases->d_bias.host(), c.d_position_table.host(),
                                             c.d_time_table.host()};
    for (std::size_t t = 0; t < 3; ++t) {
      for (std::size_t x = 0; x < exact[t].size(); ++x) {
        ASSERT_NEAR(actual[t][x], exact[t][x], 1e-4) << t << ", " << x;
      }
    }
  }

 private:
  std::int64_t draw(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(generator_);
  }
  Shape shape_for(MaskKind kind, std::int64_t longest) {
    Shape shape{{}, {}, draw(1, 2), draw(1, 9)};
    const std::int64_t longest_keys = draw(0, 99) == 0 ? 300 : longest;
    for (std::int64_t s = draw(0, 3); s > 0; --s) {
      shape.query_lengths.push_back(draw(0, longest));
      shape.key_lengths.push_back(draw(0, longest_keys));
    }
    if (kind >= MaskKind::kDocuments) shape.key_lengths = shape.query_lengths;
    shape.num_key_heads = shape.num_heads;
    if (draw(0, 3) == 0) shape.num_heads *= draw(1, 3);
    if (draw(0, 2) == 0) shape.activation = AttentionActivation::kSilu;
    return shape;
  }

  std::mt19937 generator_;
  TestStreams& streams_;
};

class AttentionMasks : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, AttentionMasks, testing::ValuesIn(test_devices()), device_name);

TEST_P(AttentionMasks, TenThousandRandomBatchesMatchTheReference) {
  RandomBatches batches(3, *this);
  for (int i = 0; i < on_cpu_or_not(10'000, 40) && !testing::Test::HasFailure(); ++i) {
    batches.expect_reference(i);
  }
}

TEST_P(AttentionMasks, RowsThatSeeNothingAreZeroAndHaveNoGradient) {
  Shape shape = full_shape({100}, {120}, 2, 16);
  std::vector<std::int64_t> ranges((100 + kTokensBefore) * 4, 0);
  for (std::int64_t i = 50; i < 100; ++i) ranges[(kTokensBefore + i) * 4 + 1] = 120;
  Case c(shape, *this);
  c.shape.mask = RowMask{c.input(ranges)};
  c.run();
  for (std::int64_t i = 0; i < 50; ++i) {
    const std::int64_t token = kTokensBefore + i;
    EXPECT_EQ(c.lse[token], -kInfinity);
    for (std::int64_t x = 0; x < 16; ++x) {
      EXPECT_EQ(c.out.at(token, 1)[x], 0);
      EXPECT_EQ(c.d_q.at(token, 1)[x], 0);
    }
  }
  EXPECT_TRUE(std::isfinite(c.lse[kTokensBefore + 50]));
}

TEST_P(AttentionMasks, ThirtyRunsHaveTheSameBits) {
  std::mt19937 generator(5);
  const Shape shape = sized({{200, 97, 30, 130}, {150, 200, 3, 150}, 2, 16});
  const TestMask mask = random_mask(MaskKind::kColumns, batch_of(shape), generator, stream);
  Case first = masked_case(shape, mask, *this);
  first.run(2);
  for (int run = 1; run < on_cpu_or_not(30, 2); ++run) {
    Case again = masked_case(shape, mask, *this);
    again.run(2);
    expect_same_results(first, again);
  }
}

// Their arrays as the host reads them.
TEST(AttentionMaskErrors, MasksThatDoNotFitTheBatch) {
  TestStreams host(Device::cpu());
  const std::vector<std::int64_t> none, one = {0}, falling = {2, 9, 4, 10}, short_of = {0, 9};
  const std::vector<std::int64_t> many_targets = {5, 0};
  const std::vector<std::uint8_t> dense(3 * 4, 1);
  const BitMask bits(DeviceMatrix(on_cpu(dense), 3, 4), host.stream);
  const std::vector<BitMaskView> views = {bits.view()};
  const AttentionMask masks[] = {PrefixMask{on_cpu(one)},
                                 DocumentMask{on_cpu(none)},
                                 DocumentMask{on_cpu(falling)},
                                 DocumentMask{on_cpu(short_of)},
                                 DocumentMask{on_cpu(falling), -1},
                                 HstuMask{.num_targets = on_cpu(one)},
                                 HstuMask{.num_targets = on_cpu(many_targets)},
                                 HstuMask{.target_group_size = 0},
                                 RowMask{on_cpu(falling)},
                                 ColumnMask{on_cpu(falling)},
                                 BlockMask{},
                                 BlockMask{on_cpu(views)},
                                 WindowMask{.left = kUnlimited + 1}};
  for (const AttentionMask& mask : masks) {
    Case c(full_shape({4, 4}, {4, 4}, 1, 8), host);
    c.shape.mask = mask;
    EXPECT_THROW(jagged_attention_forward(c.forward_args(), host.stream), Error) << mask.index();
    EXPECT_THROW(plan_attention(c.forward_args(), host.stream), Error) << mask.index();
  }
  Case cross(full_shape({4, 4}, {4, 5}, 1, 8), host);
  cross.shape.mask = HstuMask{};
  EXPECT_THROW(jagged_attention_forward(cross.forward_args(), host.stream), Error);
}

class BitMaskTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, BitMaskTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(BitMaskTest, TileDensityCountsTilesThatAreNotEmpty) {
  TestArray<std::uint8_t> dense(96 * 64);
  dense[0] = 1;             // query 0, key 0
  dense[95 * 64 + 63] = 1;  // the last of both
  const BitMask mask({dense.on(stream), 96, 64}, stream);
  EXPECT_DOUBLE_EQ(mask.tile_density(32, stream), 2.0 / 6);
  EXPECT_DOUBLE_EQ(mask.tile_density(96, stream), 1);
}

}  // namespace
}  // namespace serrate
