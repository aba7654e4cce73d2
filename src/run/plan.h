#pragma once

#include "serrate/communicator.h"
#include "serrate/sharding_plan.h"
#include "serrate/trainer.h"
#include "src/data/dataset.h"
#include "src/data/split.h"

namespace serrate {

/// The plan of a training, the same on every rank: of the file options.plan, made by the planner
/// ("auto") or default_plan. Nothing of the model is allocated yet: a run that would not fit in
/// memory is refused by an Error (usage) that names tables and bytes. `device` is this rank's; rank
/// 0 says how many GPUs there are. Collective.
ShardingPlan run_plan(const Dataset& dataset, const Split& split, const TrainOptions& options,
                      Communicator& communicator, Device device);

/// default_plan for the evaluation of a run, refused in the same way. Collective.
ShardingPlan evaluation_plan(const Dataset& dataset, const Split& split, const TrainOptions& run,
                             const EvaluateOptions& options, Communicator& communicator,
                             Device device);

}  // namespace serrate
