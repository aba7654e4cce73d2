#pragma once

#include "sharding/estimate/estimator.h"

namespace serrate {

/// One shard of `rows` rows by the model of TorchRec 1.9 (planner/shard_estimators.py, with no
/// quantised communication and no expected cache fetches); equal to it to 1e-9.
ShardEstimate torchrec_estimate(const PlannerTable& table, const ShardingOption& option,
                                std::int64_t rows, const PlannerTopology& topology,
                                std::int64_t batch_size);

}  // namespace serrate
