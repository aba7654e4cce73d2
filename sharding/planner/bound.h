#pragma once

#include "sharding/planner/problem.h"

namespace serrate {

/// What no placement can beat, and the prices that say so.
struct PlannerBound {
  double objective = 0;  // ms; infinite when nothing fits
  /// ms that a byte of memory, summed over ranks, is worth at the bound.
  double device_price = 0;
  double host_price = 0;
};

/// From loads and memory that may be spread freely over the ranks.
PlannerBound planner_bound(const PlannerProblem& problem, PlannerObjective objective);

/// A bound at least as high as `bound`, for which cases are told apart by how long the slowest
/// rank of a phase takes, as no shard may be longer. `known` is what a placement that was found
/// takes, in ms. Returns the best bound proved while trying 0.92 to 1 of `known` as goals.
double raise_bound(const PlannerProblem& problem, PlannerObjective objective,
                   const PlannerBound& bound, double known);

}  // namespace serrate
