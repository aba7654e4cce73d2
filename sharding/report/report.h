#pragma once

#include "serrate/planner_report.h"
#include "sharding/estimate/plan_cost.h"

namespace serrate {

/// Adds a table to `sum` as a valid plan has it.
TableReport add_table(const PlannerModel& model, const PlannerTopology& topology,
                      const PlannerTable& table, const TableSharding& sharding,
                      PlannerEstimator estimator, PlanCostSum& sum);

/// Type, kernel and number of blocks of a plan's table: what PlanCostSum::add_latency sees. Where
/// the blocks are is left open.
PlacedTable outline_of(const TableSharding& sharding);

}  // namespace serrate
