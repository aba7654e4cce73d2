#include "serrate/random.h"

#include <gtest/gtest.h>

#include <set>

namespace serrate {
namespace {

using Counter = std::array<std::uint32_t, 4>;

// The known answers of Random123, the authors' own implementation (kat_vectors, philox4x32 10).
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomTest, SeedUseStreamAndIndexAllCount) {
  const std::set<std::uint64_t> different{
      random_bits(1, RandomUse::kInit, 0, 0),
      random_bits(2, RandomUse::kInit, 0, 0),
      random_bits(std::uint64_t{1} << 32, RandomUse::kInit, 0, 0),
      random_bits(1, RandomUse::kShuffle, 0, 0),
      random_bits(1, RandomUse::kInit, 1, 0),
      random_bits(1, RandomUse::kInit, 0, 1),
      random_bits(1, RandomUse::kInit, 0, std::uint64_t{1} << 32)};
  EXPECT_EQ(different.size(), 7u);
}

TEST(RandomTest, UniformIsTheTopBitsAsAFraction) {
  const std::uint64_t bits = random_bits(3, RandomUse::kDropout, 4, 5);
  EXPECT_EQ(random_uniform(3, RandomUse::kDropout, 4, 5),
            static_cast<double>(bits >> 11) / 9007199254740992.0);
}

TEST(RandomTest, BelowCoversTheRangeEvenly) {
  constexpr std::int64_t kDraws = 70000;
  std::vector<std::int64_t> counts(7);
  for (std::int64_t i = 0; i < kDraws; ++i) ++counts.at(random_below(1, RandomUse::kInit, 0, i, 7));
  // Six standard deviations of a binomial count: 6 * sqrt(70000 * 1/7 * 6/7).
  for (const std::int64_t count : counts) EXPECT_NEAR(count, 10000, 556);
}

TEST(RandomTest, BelowHandlesBoundsPast32Bits) {
  constexpr std::int64_t kBound = std::int64_t{1} << 62;
  std::int64_t largest = 0;
  for (std::int64_t i = 0; i < 100; ++i) {
    const std::int64_t value = random_below(1, RandomUse::kInit, 0, i, kBound);
    ASSERT_GE(value, 0);
    ASSERT_LT(value, kBound);
    largest = std::max(largest, value);
  }
  EXPECT_GT(largest, kBound / 2);  // fails with probability 2^-100
}

}  // namespace
}  // namespace serrate
