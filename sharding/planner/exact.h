#pragma once

#include <cstdint>

#include "sharding/planner/search.h"

namespace serrate {

/// Tries all placements of a small problem, depth first, leaving out those that cannot be better
/// than `best`; keeps the best in `best`. False when `most_placements` of an item did not suffice.
bool try_all_placements(const PlannerProblem& problem, PlannerObjective objective,
                        std::int64_t most_placements, SearchResult& best);

}  // namespace serrate
