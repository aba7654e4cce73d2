#pragma once

#include "serrate/communicator.h"
#include "serrate/sharding_plan.h"
#include "serrate/trainer.h"
#include "src/data/dataset.h"
#include "src/data/split.h"

namespace serrate {

/// How the ranks hold and make a model.
struct RunPlan {
  ShardingPlan sharding;
  std::int64_t tokens_at_once;  ///< at most, of a micro-batch of several sequences
};

/// The plan of a training, the same on every rank: of the file options.plan, made by the planner
/// ("auto") or default_plan. Nothing of the model is allocated yet: a run that would not fit in
/// memory is refused by an Error (usage) that names tables and bytes. A batch that does not fit
/// into a GPU at once is cut, unless the run is reproducible: sums would depend on the GPU.
/// `device` is this rank's; rank 0 says how many GPUs there are. Collective.
RunPlan run_plan(const Dataset& dataset, const Split& split, const TrainOptions& options,
                 Communicator& communicator, Device device);

/// default_plan for the evaluation of a run, cut or refused in the same way. Collective.
RunPlan evaluation_plan(const Dataset& dataset, const Split& split, const TrainOptions& run,
                        const EvaluateOptions& options, Communicator& communicator, Device device);

}  // namespace serrate
