#pragma once

#include <vector>

#include "serrate/planner.h"
#include "sharding/estimate/estimator.h"

namespace serrate {

/// The cuts of a placed table. Throws Error (usage) unless it is placed as its type and its
/// constraints say.
ShardingOption placed_option(const PlannerTable& table, const PlannerTopology& topology,
                             const PlacedTable& placed);

/// The ranks of column block `block`, in the order of their row blocks.
std::vector<int> ranks_of(const PlannerTable& table, const PlannerTopology& topology,
                          const PlacedTable& placed, int block);

}  // namespace serrate
