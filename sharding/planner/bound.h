#pragma once

#include <vector>

#include "sharding/planner/misfits.h"
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

/// The candidates with which a placement of at most `known`, in ms, is possible by the bound's
/// prices: added to it is what the cheapest candidates of the other items cost.
Allowed candidates_below(const PlannerProblem& problem, const PlannerBound& bound, double known);

/// Which candidate of an item, and the node of each of its blocks where the nodes are told apart.
struct ItemChoice {
  int candidate = 0;
  std::vector<int> nodes = {};
  friend bool operator==(const ItemChoice&, const ItemChoice&) = default;
};

/// Choices of all items that come near to a placement below `known` in the mean over ranks: what
/// the relaxed problem has most of for each item. `most` at most, which differ, of the last ones
/// found when `most_cases` cases are told apart, fewer where there are many candidates.
std::vector<std::vector<ItemChoice>> relaxed_choices(const PlannerProblem& problem,
                                                     PlannerObjective objective, double known,
                                                     std::size_t most, int most_cases);

/// A bound at least as high as `bound`, for which cases are told apart: by how long the slowest
/// rank of a phase takes, as no shard may be longer, and by the candidate of one item, with the
/// nodes of its blocks. `known` is what a placement that was found takes, in ms. Returns the best
/// bound proved while trying 0.92 to 1 of `known` as goals. Where critical_path's bound stays 2 %
/// or more below `known`, max_rank's is taken if it is higher (up to 1,500 candidates).
double raise_bound(const PlannerProblem& problem, PlannerObjective objective,
                   const PlannerBound& bound, double known);

}  // namespace serrate
