#pragma once

#include <vector>

#include "sharding/planner/bound.h"
#include "sharding/planner/misfits.h"
#include "sharding/planner/problem.h"

namespace serrate {

/// Which items have their rows in host memory and by which kernel, as restrictions of the
/// candidates: the few choices with which all items fit the devices together in the least time, the
/// cheapest first, then those that leave some memory free; and the same without long shards in host
/// memory, as a long shard is cheap in the mean over ranks and yet one rank's to wait for. Only of
/// shards, and of time in the mean over ranks, below `known`, ms. None when all items fit without
/// host memory and leave some free.
std::vector<Allowed> kernel_sets(const PlannerProblem& problem, const PlannerBound& bound,
                                 double known);

}  // namespace serrate
