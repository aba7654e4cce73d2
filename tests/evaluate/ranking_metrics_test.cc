#include "src/evaluate/ranking_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace serrate {
namespace {

TEST(RankingMetrics, AreMeansOverAllCases) {
  // Gains 1, 1 / log2(3) and 1 / log2(4) = 0.5; ranks 4 and none are beyond 3.
  const std::vector<std::int64_t> ranks = {1, 2, 3, 4, kNotRanked};
  const RankingMetrics at3 = ranking_metrics(ranks, 3);
  EXPECT_DOUBLE_EQ(at3.hr, 0.6);
  EXPECT_DOUBLE_EQ(at3.ndcg, (1.5 + std::log(2.0) / std::log(3.0)) / 5);
  const RankingMetrics at1 = ranking_metrics(ranks, 1);
  EXPECT_DOUBLE_EQ(at1.hr, 0.2);
  EXPECT_DOUBLE_EQ(at1.ndcg, 0.2);
}

TEST(RankingMetrics, AreZeroWithoutCases) {
  EXPECT_EQ(ranking_metrics({}, 10).hr, 0);
  EXPECT_EQ(ranking_metrics({}, 10).ndcg, 0);
}

}  // namespace
}  // namespace serrate
