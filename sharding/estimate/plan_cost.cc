#include "sharding/estimate/plan_cost.h"

#include <algorithm>

#include "serrate/error.h"
#include "sharding/estimate/serrate_estimator.h"
#include "sharding/plan/placement.h"

namespace serrate {

PlanCostSum::PlanCostSum(const PlannerModel& model, const PlannerTopology& topology,
                         PlannerEstimator estimator)
    : model_(model),
      topology_(topology),
      estimator_(estimator),
      rank_ms_(topology.world_size),
      phases_(topology.world_size),
      held_(topology.world_size) {}

void PlanCostSum::add(const PlannerTable& table, const PlacedTable& placed) {
  const ShardingOption option = placed_option(table, topology_, placed);
  add_everywhere(table, option);
  std::int64_t rows = -1;
  ShardEstimate e;
  for (int block = 0; block < option.num_column_blocks; ++block) {
    const std::vector<int> ranks = ranks_of(table, topology_, placed, block);
    for (int i = 0; i < std::ssize(ranks); ++i) {
      const std::int64_t rows_here =
          option.num_row_blocks > 1 ? rows_of(table, option, i) : option.rows;
      if (rows_here != rows) {
        rows = rows_here;
        e = estimate_shard(estimator_, table, option, rows, topology_, model_.batch_size);
      }
      add_shard(placed.type, e, ranks[i]);
    }
  }
}

ShardEstimate PlanCostSum::add_everywhere(const PlannerTable& table, const ShardingOption& option) {
  const ShardEstimate e =
      estimate_everywhere(estimator_, table, option, topology_, model_.batch_size);
  everywhere_ms_ += e.total(estimator_);
  const PhaseTimes times = phase_times(estimator_, option.type, e);
  for (int k = 0; k < kMostPhases; ++k) everywhere_phases_[k] += times[k];
  return e;
}

void PlanCostSum::add_shard(ShardingType type, const ShardEstimate& e, int rank) {
  held_[rank].add(e);
  rank_ms_[rank] += e.total(estimator_);
  const PhaseTimes times = phase_times(estimator_, type, e);
  for (int k = 0; k < kMostPhases; ++k) phases_[rank][k] += times[k];
}

void PlanCostSum::add_latency(std::span<const PlacedTable> placed) {
  latency_ms_ = serrate_latency(model_, topology_, placed);
  everywhere_ms_ += latency_ms_;
}

void PlanCostSum::add_exchange_memory(const ShardingPlan& plan) {
  const auto predicted = predict_memory(model_, plan);
  for (int rank = 0; rank < topology_.world_size; ++rank) {
    ShardEstimate& e = held_[rank];
    auto& near = topology_.device == PlannerDevice::kCuda ? e.device_bytes : e.host_bytes;
    near += predicted[rank].exchange + predicted[rank].ahead - e.exchange_bytes;
  }
}

PhaseTimes PlanCostSum::phase_ms(int rank) const {
  PhaseTimes times = phases_[rank];
  for (int k = 0; k < kMostPhases; ++k) times[k] += everywhere_phases_[k];
  return times;
}

PlanCost PlanCostSum::cost() const {
  PlanCost cost{.max_rank = *std::ranges::max_element(rank_ms_) + everywhere_ms_,
                .critical_path = everywhere_ms_};
  for (int k = 0; k < kMostPhases; ++k) {
    double slowest = 0;
    for (const PhaseTimes& times : phases_) slowest = std::max(slowest, times[k]);
    cost.critical_path += slowest;
  }
  for (const ShardEstimate& e : held_) {
    cost.device_bytes.push_back(e.device_bytes);
    cost.host_bytes.push_back(e.host_bytes);
  }
  return cost;
}

PlanCost cost_of(const PlannerModel& model, const PlannerTopology& topology,
                 std::span<const PlacedTable> tables, PlannerEstimator estimator) {
  check(tables.size() == model.tables.size(), "a placement has to be given for each table");
  PlanCostSum sum(model, topology, estimator);
  for (std::size_t t = 0; t < tables.size(); ++t) sum.add(model.tables[t], tables[t]);
  if (estimator == PlannerEstimator::kSerrate) {
    sum.add_latency(tables);
    sum.add_exchange_memory(to_sharding_plan(model, topology, tables));
  }
  return sum.cost();
}

}  // namespace serrate
