#pragma once

#include <vector>

#include "serrate/planner.h"
#include "sharding/estimate/estimator.h"

namespace serrate {

/// Adds up what each rank spends and holds under a plan.
class PlanCostSum {
 public:
  PlanCostSum(const PlannerModel& model, const PlannerTopology& topology,
              PlannerEstimator estimator);

  /// All shards of a placed table, and what it costs every rank whatever it holds.
  void add(const PlannerTable& table, const PlacedTable& placed);
  /// The same, piece by piece.
  ShardEstimate add_everywhere(const PlannerTable& table, const ShardingOption& option);
  void add_shard(ShardingType type, const ShardEstimate& estimate, int rank);
  /// What no table has for itself, for kSerrate: the wait for messages, of which the types and the
  /// numbers of blocks decide; and, last, the buffers of all exchanges.
  void add_latency(std::span<const PlacedTable> placed);
  void add_exchange_memory(const ShardingPlan& plan);

  PlanCost cost() const;
  double rank_ms(int rank) const { return rank_ms_[rank] + everywhere_ms_; }
  /// What every rank waits for messages.
  double latency_ms() const { return latency_ms_; }
  /// Times of a rank, latency not included.
  PhaseTimes phase_ms(int rank) const;

 private:
  const PlannerModel& model_;
  const PlannerTopology& topology_;
  PlannerEstimator estimator_;
  std::vector<double> rank_ms_;      // [world_size]
  std::vector<PhaseTimes> phases_;   // [world_size]
  std::vector<ShardEstimate> held_;  // [world_size]
  double everywhere_ms_ = 0;         // with latency
  PhaseTimes everywhere_phases_{};
  double latency_ms_ = 0;
};

}  // namespace serrate
