#include "src/data/split.h"

#include <gtest/gtest.h>

#include <vector>

#include "serrate/error.h"
#include "tests/support/tiny_dataset.h"

namespace serrate {
namespace {

using Positions = std::vector<std::int64_t>;

std::vector<Positions> rows(const std::vector<EvaluationCase>& cases) {
  std::vector<Positions> result;
  for (const EvaluationCase& c : cases) {
    result.push_back({c.user, c.history_begin, c.history_end, c.target_event});
  }
  return result;
}

TEST(Split, LastItemHoldsOutTheLastEventOfUsersWithTwo) {
  const Dataset dataset = tiny_dataset({{{1, 2, 3}}, {{4}}, {{5, 6}}}, 7);
  const Split split = make_split(dataset, SplitKind::kLastItem);
  EXPECT_EQ(split.train_end, (Positions{2, 4, 5}));
  EXPECT_EQ(rows(split.cases), (std::vector<Positions>{{0, 0, 2, 2}, {2, 4, 5, 5}}));
}

TEST(Split, LastBasketHoldsOutTheWholeBasketAndPredictsItsFirstEvent) {
  // User 0: baskets {7}, {8, 8, 8}; user 1: one basket; user 2: {3, 3}, {4}.
  const Dataset dataset = tiny_dataset({{{1, 2, 3, 4}, {10, 20, 20, 21}, {7, 8, 8, 8}},
                                        {{5, 6}, {30, 31}, {9, 9}},
                                        {{1, 2, 3}, {5, 5, 5}, {3, 3, 4}}},
                                       7);
  const Split split = make_split(dataset, SplitKind::kLastBasket);
  EXPECT_EQ(split.train_end, (Positions{1, 6, 8}));
  EXPECT_EQ(rows(split.cases), (std::vector<Positions>{{0, 0, 1, 1}, {2, 6, 8, 8}}));
}

TEST(Split, EventsOfTheLastBasketBeforeAnotherOneAreHeldOutToo) {
  const Dataset dataset = tiny_dataset({{{1, 2, 3, 4}, {1, 2, 2, 2}, {5, 6, 7, 6}}}, 5);
  const Split split = make_split(dataset, SplitKind::kLastBasket);
  EXPECT_EQ(split.train_end, Positions{1});
}

TEST(Split, WithoutBasketNumbersABasketIsATimestamp) {
  const Dataset dataset = tiny_dataset({{{1, 2, 3, 4}, {10, 20, 20, 20}}, {{5, 6}, {30, 30}}}, 7);
  const Split split = make_split(dataset, SplitKind::kLastBasket);
  EXPECT_EQ(split.train_end, (Positions{1, 6}));
  EXPECT_EQ(rows(split.cases), (std::vector<Positions>{{0, 0, 1, 1}}));
}

TEST(Split, TimeCutsAllUsersAtOneTimestamp) {
  // Ten events; in order of time number 6 (of 0..9) is at time 60. The range is as wide as
  // it may be and needs several rounds of buckets. User 2 appears after the cut and is neither
  // trained on nor evaluated.
  const std::int64_t far = 6'000'000'000'000;
  const Dataset dataset = tiny_dataset(
      {{{0, 1, 2, 3}, {-far, 10, 60, 70}}, {{0, 1, 2, 3}, {20, 30, 40, 50}}, {{4, 5}, {80, far}}},
      6);
  const Split split = make_split(dataset, SplitKind::kTime, 0.6);
  EXPECT_EQ(split.train_end, (Positions{2, 8, 8}));
  EXPECT_EQ(rows(split.cases), (std::vector<Positions>{{0, 0, 2, 2}}));
}

TEST(Split, EventsAtTheTimeOfTheCutAreHeldOut) {
  const Dataset dataset = tiny_dataset({{{0, 1, 2, 3}, {1, 5, 5, 5}}}, 4);
  EXPECT_EQ(make_split(dataset, SplitKind::kTime, 0.9).train_end, Positions{1});
}

TEST(Split, NamesRoundTripAndUnknownOnesAreRefused) {
  for (const auto kind : {SplitKind::kLastItem, SplitKind::kLastBasket, SplitKind::kTime}) {
    EXPECT_EQ(split_kind_from_string(to_string(kind)), kind);
  }
  EXPECT_EQ(to_string(SplitKind::kLastBasket), "last-basket");
  EXPECT_THROW(split_kind_from_string("last"), Error);
  const Dataset dataset = tiny_dataset({{{0, 1}}}, 2);
  EXPECT_THROW(make_split(dataset, SplitKind::kTime, 1.5), Error);
}

}  // namespace
}  // namespace serrate
