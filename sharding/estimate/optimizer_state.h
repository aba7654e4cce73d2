#pragma once

#include "serrate/planner.h"

namespace serrate {

/// Floats of optimizer state that a row of a shard of `columns` has at run time. (TorchRec's model
/// counts bytes by a factor of its own, torchrec_estimator.cc.)
double state_floats(const PlannerTable& table, double columns);

}  // namespace serrate
