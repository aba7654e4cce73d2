#include "serrate/kernels/mask_reordering.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "serrate/error.h"

namespace serrate {
namespace {

TEST(ReverseCuthillMcKee, AShuffledPathComesBackInOrder) {
  constexpr std::int64_t kTokens = 200;
  std::vector<std::int64_t> path(kTokens);
  std::iota(path.begin(), path.end(), 0);
  std::shuffle(path.begin(), path.end(), std::mt19937(1));
  std::vector<std::uint8_t> visible(kTokens * kTokens, 0);
  for (std::int64_t p = 0; p + 1 < kTokens; ++p) visible[path[p] * kTokens + path[p + 1]] = 1;

  const auto order = reverse_cuthill_mckee({visible.data(), kTokens, kTokens});
  EXPECT_TRUE(order == path || std::equal(order.begin(), order.end(), path.rbegin()));
}

TEST(ReverseCuthillMcKee, EveryTokenComesOnceAlsoThoseThatSeeNone) {
  std::vector<std::uint8_t> visible(5 * 5, 0);
  visible[1 * 5 + 3] = 1;
  auto order = reverse_cuthill_mckee({visible.data(), 5, 5});
  // Those without neighbours come first in breadth-first order, so last.
  EXPECT_EQ(order, (std::vector<std::int64_t>{3, 1, 4, 2, 0}));
}

TEST(ReverseCuthillMcKee, OnlySquareMasks) {
  EXPECT_THROW(reverse_cuthill_mckee({nullptr, 2, 3}), Error);
}

}  // namespace
}  // namespace serrate
