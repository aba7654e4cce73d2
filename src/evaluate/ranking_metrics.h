#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace serrate {

/// The rank of a target that is not among the ranked items.
constexpr std::int64_t kNotRanked = std::numeric_limits<std::int64_t>::max();

/// Means over all cases; one target per case, so the ideal DCG is 1.
struct RankingMetrics {
  double hr = 0;    ///< share of targets with rank <= K
  double ndcg = 0;  ///< 1 / log2(1 + rank) where rank <= K, else 0
};

/// `ranks` of the targets, from 1; summed in their order. Without cases both are 0.
RankingMetrics ranking_metrics(std::span<const std::int64_t> ranks, std::int64_t k);

}  // namespace serrate
