#pragma once

#include <string>
#include <vector>

#include "sharding/planner_problem.h"

namespace serrate {

/// What no placement can beat, and the prices that say so.
struct PlannerBound {
  /// No placement within the memory has a rank that spends less, in ms; so the critical path, a
  /// sum of maxima, is not shorter either. Infinite when nothing fits.
  double max_rank = 0;
  /// ms that a byte of memory, summed over ranks, is worth at the bound.
  double device_price = 0;
  double host_price = 0;
};

PlannerBound planner_bound(const PlannerProblem& problem);

/// Why the tables cannot fit whatever the placement: which, how many bytes, and what would make
/// them fit. Empty when that is not proved.
std::string prove_infeasible(const PlannerProblem& problem, const PlannerModel& model);

}  // namespace serrate
