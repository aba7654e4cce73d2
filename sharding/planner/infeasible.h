#pragma once

#include <string>

#include "sharding/planner/misfits.h"
#include "sharding/planner/problem.h"

namespace serrate {

/// Why the tables cannot fit whatever the placement: which, how many bytes, and what would make
/// them fit. Empty when that is not proved.
std::string prove_infeasible(const PlannerProblem& problem, const PlannerModel& model);
/// The same of an item that does not fit beside the others.
std::string describe_misfit(const PlannerProblem& problem, const Misfit& misfit,
                            const PlannerModel& model);

}  // namespace serrate
