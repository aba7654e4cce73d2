#pragma once

#include <span>

#include "sharding/estimate/estimator.h"

namespace serrate {

// What src/embedding does in a step. The formulas are in docs/planner.md.

/// One shard of `rows` rows, on its rank: it receives the ids of the bags that have any in these
/// rows, reads rows, sends one for each such bag, gets the gradients back and updates each row that
/// occurred once. Ranks without rows may still pass on what goes through their node.
ShardEstimate serrate_estimate(const PlannerTable& table, const ShardingOption& option,
                               std::int64_t rows, const PlannerTopology& topology,
                               std::int64_t batch_size);

/// What every rank spends on a table for its own bags, whoever serves them. Times alone: memory of
/// this kind is in predict_memory.
ShardEstimate serrate_everywhere(const PlannerTable& table, const ShardingOption& option,
                                 const PlannerTopology& topology, std::int64_t batch_size);

/// Bags go to the node of the owners first, and from there to each of them.
bool goes_through_nodes(ShardingType type, const PlannerTopology& topology);

/// ms that a rank's messages wait, all tables' together: an exchange takes one message to each
/// other rank. Of a placement, or at least of any when `placed` is empty.
double serrate_latency(const PlannerModel& model, const PlannerTopology& topology,
                       std::span<const PlacedTable> placed);

}  // namespace serrate
