#include "src/data/prefetcher.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

namespace serrate {
namespace {

TEST(Prefetcher, GivesAllResultsInOrderThenNone) {
  int produced = 0;
  Prefetcher<int> prefetcher(
      [&produced] { return produced < 100 ? std::optional(produced++) : std::nullopt; }, 3);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(prefetcher.next(), i);
  EXPECT_EQ(prefetcher.next(), std::nullopt);
  EXPECT_EQ(prefetcher.next(), std::nullopt);
}

TEST(Prefetcher, HoldsAtMostDepthResults) {
  std::atomic<int> produced = 0;
  Prefetcher<int> prefetcher([&produced] { return std::optional(produced++); }, 2);
  for (int taken = 1; taken <= 50; ++taken) {
    prefetcher.next();
    EXPECT_LE(produced, taken + 2);
  }
}

TEST(Prefetcher, RethrowsAfterTheResultsBeforeTheError) {
  int produced = 0;
  Prefetcher<int> prefetcher(
      [&produced]() -> std::optional<int> {
        if (produced == 2) throw std::runtime_error("disk gone");
        return produced++;
      },
      5);
  EXPECT_EQ(prefetcher.next(), 0);
  EXPECT_EQ(prefetcher.next(), 1);
  EXPECT_THROW(prefetcher.next(), std::runtime_error);
  EXPECT_THROW(prefetcher.next(), std::runtime_error);
}

TEST(Prefetcher, EndsWhileItsQueueIsFull) {
  std::atomic<int> produced = 0;
  {
    Prefetcher<int> prefetcher([&produced] { return std::optional(produced++); }, 2);
    prefetcher.next();
  }
  const int at_end = produced;
  EXPECT_LE(at_end, 3);
}

}  // namespace
}  // namespace serrate
