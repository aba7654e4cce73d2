#include "src/evaluate/baselines.h"

#include <gtest/gtest.h>

#include <vector>

#include "src/evaluate/ranking_metrics.h"
#include "tests/support/tiny_dataset.h"

namespace serrate {
namespace {

using Ranks = std::vector<std::int64_t>;

// Histories and targets (last item) of three evaluated users; user 2 has one event and counts for
// nothing.
//   user 0: 0 1 0 2 -> 1
//   user 1: 1 0 3   -> 0
//   user 2: 5
//   user 3: 3 2     -> 4
// Events: 0 three times; 1, 2 and 3 twice, first seen in the order 1, 2, 3; 4 and 5 never.
// Popularity: 0, 1, 2, 3, 4, 5. Transitions: 0 to 1, 2 and 3 once each, in that order; 1 to 0
// twice; 3 to 2 once.
Dataset example() {
  return tiny_dataset({{{0, 1, 0, 2, 1}}, {{1, 0, 3, 0}}, {{5}}, {{3, 2, 4}}}, 6);
}

TEST(Baselines, RanksOfTheTargets) {
  const Dataset dataset = example();
  const Split split = make_split(dataset, SplitKind::kLastItem);
  const BaselineRanks ranks = rank_baselines(dataset, split);
  EXPECT_EQ(ranks.popularity, (Ranks{2, 1, 5}));
  // User 0 has 0 twice, then 1 and 2 once, 1 first; user 1 has 0 second of three; user 3 has no 4.
  EXPECT_EQ(ranks.repeat, (Ranks{2, 2, kNotRanked}));
  // After 2 nothing was seen: popularity. After 3 came 2, then popularity: 0 is second.
  EXPECT_EQ(ranks.markov, (Ranks{2, 2, 5}));
}

TEST(Baselines, MarkovRanksByCountThenByWhatCameFirstThenByPopularity) {
  // In the histories, after 0 came 2 twice, 1 once and later 3 once; the others by events: 0 4 5 6.
  const Dataset dataset = tiny_dataset({{{4, 4, 4, 4, 0, 1, 0, 2}},
                                        {{5, 0, 2, 0, 3}},
                                        {{0, 2, 0, 3, 0, 1}},
                                        {{5, 0, 4}},
                                        {{5, 0, 5}},
                                        {{4, 0, 6}}},
                                       7);
  const Split split = make_split(dataset, SplitKind::kLastItem);
  EXPECT_EQ(rank_baselines(dataset, split).markov, (Ranks{1, 3, 2, 5, 6, 7}));
}

TEST(Baselines, FilteringLeavesSeenItemsOut) {
  const Dataset dataset = example();
  const Split split = make_split(dataset, SplitKind::kLastItem);
  const BaselineRanks ranks = rank_baselines(dataset, split, SeenItems::kFilter);
  // Users 0 and 1 have had their targets; without 2 and 3, item 4 comes after 0 and 1.
  EXPECT_EQ(ranks.popularity, (Ranks{kNotRanked, kNotRanked, 3}));
  EXPECT_EQ(ranks.repeat, (Ranks{kNotRanked, kNotRanked, kNotRanked}));
  EXPECT_EQ(ranks.markov, (Ranks{kNotRanked, kNotRanked, 3}));
}

TEST(Baselines, BytesAreThoseOfTheHistoriesThatAreCounted) {
  const Dataset dataset = example();
  Split split = make_split(dataset, SplitKind::kLastItem);
  const std::int64_t all = baseline_bytes(dataset, split);
  split.cases.erase(split.cases.begin());  // user 0: 3 successors of 8 bytes, and 48 for its ranks
  EXPECT_EQ(all - baseline_bytes(dataset, split), 3 * 8 + 48);
  split.cases.clear();
  EXPECT_EQ(baseline_bytes(dataset, split), 6 * 36);
}

TEST(Baselines, HeldOutEventsAreNotCounted) {
  // The basket of item 3 is held out as a whole, so 3 is as unknown as 2.
  const Dataset dataset = tiny_dataset({{{0, 1, 3, 3, 3}, {}, {1, 1, 2, 2, 2}}}, 4);
  const Split split = make_split(dataset, SplitKind::kLastBasket);
  EXPECT_EQ(rank_baselines(dataset, split).popularity, Ranks{4});
}

}  // namespace
}  // namespace serrate
