#pragma once

#include <vector>

#include "sharding/planner/bound.h"
#include "sharding/planner/misfits.h"
#include "sharding/planner/problem.h"

namespace serrate {

/// Which items have their rows in host memory and by which kernel, as restrictions of the
/// candidates: the few choices with which all items fit the devices together in the least time, the
/// cheapest first, then those that leave some memory free; and the same with no longer shards in
/// host memory than parts of `known`, as a long shard is cheap in the mean over ranks and yet one
/// rank's to wait for. Shards in host memory, and the time of all in the mean over ranks, are below
/// `known`, ms; shards on the devices may be of any length. None when all items fit without host
/// memory and leave some free.
std::vector<Allowed> kernel_sets(const PlannerProblem& problem, const PlannerBound& bound,
                                 double known);

}  // namespace serrate
