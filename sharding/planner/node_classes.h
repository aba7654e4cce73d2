#pragma once

#include <vector>

#include "sharding/planner/bound.h"
#include "sharding/planner/phases.h"
#include "sharding/planner/problem.h"

namespace serrate {

/// Two classes of nodes: shards that are on a rank alone may be long in the first nodes, which
/// what is on all ranks of a node has to leave room for, and shorter in the others. As parts of
/// what a rank takes of the phase on average.
struct NodeClasses {
  int first_nodes = 0;
  double longest_in_first = 1;
  double longest_in_others = 1;
};

/// A choice among phases.items for each item.
struct ClassChoice {
  int choice = 0;
  int node = -1;  // of what is on all ranks of one; -1: any
};

/// Choices that are cheap together in the mean over the ranks of each class.
std::vector<ClassChoice> choose_by_class(const PlannerProblem& problem, const Phases& phases,
                                         const PlannerBound& bound, const NodeClasses& classes);

}  // namespace serrate
