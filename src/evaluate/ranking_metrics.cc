#include "src/evaluate/ranking_metrics.h"

#include <cmath>

namespace serrate {

RankingMetrics ranking_metrics(std::span<const std::int64_t> ranks, std::int64_t k) {
  RankingMetrics sum;
  for (const std::int64_t rank : ranks) {
    if (rank > k) continue;
    sum.hr += 1;
    sum.ndcg += 1 / std::log2(1 + static_cast<double>(rank));
  }
  const double cases = ranks.empty() ? 1 : static_cast<double>(ranks.size());
  return {sum.hr / cases, sum.ndcg / cases};
}

}  // namespace serrate
