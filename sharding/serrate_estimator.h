#pragma once

#include "sharding/estimator.h"

namespace serrate {

/// One shard of `rows` rows by what src/embedding does with it. Its rank receives the ids of the
/// bags that have any in the shard's rows, reads rows, sends a row for each such bag, gets the
/// gradients back and updates each row that occurred once. The formulas are in docs/planner.md.
ShardEstimate serrate_estimate(const PlannerTable& table, const ShardingOption& option,
                               std::int64_t rows, const PlannerTopology& topology,
                               std::int64_t batch_size);

}  // namespace serrate
