#pragma once

#include "serrate/planner.h"
#include "serrate/trainer.h"
#include "src/data/dataset.h"
#include "src/data/split.h"

namespace serrate {

/// What a training with these options asks of its tables, for the planner: the tables of
/// tables_of, the lookups of an average step on one of `world_size` ranks, how often ids repeat
/// (from at most a million events, spread over the dataset) and the bytes of the dense parameters.
PlannerModel planner_model(const Dataset& dataset, const Split& split, const TrainOptions& options,
                           int world_size);

/// The same as the exchanges of a plan carry it: with `reproducible`, tables that are cut by rows
/// send a row for each id (SplitBags::kIdOrder), not one for each bag.
PlannerModel exchanged_model(PlannerModel model, const ShardingPlan& plan,
                             const TrainOptions& options);

}  // namespace serrate
