#pragma once

#include <span>
#include <vector>

#include "sharding/planner/bound.h"
#include "sharding/planner/problem.h"

namespace serrate {

/// Which candidate of an item, and the rank or node of each of its blocks (kRank, kNode).
struct ItemPlacement {
  int candidate = 0;
  std::vector<int> blocks = {};
};

struct SearchResult {
  std::vector<ItemPlacement> items = {};
  double objective = 0;  // ms
  bool within_memory = false;
  bool is_best = false;  // no placement is cheaper; if it is not within memory, none is
};

/// Whether items times ranks are few enough for a search of all that it does.
bool is_small(const PlannerProblem& problem);

/// kScarce: most placements do not fit the memory. kRefine: the same, from `starts` alone.
enum class SearchEffort { kPlenty, kScarce, kRefine };

/// A placement that is cheap in `options.objective`. Greedy starts over several restrictions of the
/// candidates, from what the relaxed problem chooses, and the placements `starts` (an empty one is
/// left out), local search from the best, then more starts or annealing, until a number of
/// evaluations that depends on the problem's size alone, or the time limit; small problems are
/// searched through.
SearchResult search_placement(const PlannerProblem& problem, const PlannerBound& bound,
                              const PlannerOptions& options,
                              std::span<const std::vector<ItemPlacement>> starts,
                              SearchEffort effort);

}  // namespace serrate
