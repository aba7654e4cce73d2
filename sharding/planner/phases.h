#pragma once

#include <vector>

#include "sharding/planner/misfits.h"
#include "sharding/planner/problem.h"

namespace serrate {

/// The objective in the search's terms: the sum over phases of the longest time of a rank. Items
/// are restricted to some of their candidates; phases that are proportional for all of them are
/// one, and time that all ranks spend alike is a number of its own.
struct Phases {
  struct Choice {
    int candidate = 0;         // of the item
    double uniform = 0;        // ms on every rank, wherever its blocks are
    std::vector<double> time;  // [num_phases], of one rank of a block; empty for kAll
    double longest = 0;        // ms of one shard in its longest phase; of kAll in all of them
    double total = 0;          // ms of one shard, of kAll too, in all phases
    double work = 0;           // ms, summed over all ranks
  };
  int num_phases = 0;
  std::vector<std::vector<Choice>> items;  // [num_items]
};

/// The sharding types that a search may use; an item that has none of them keeps all it has.
using TypeSet = std::vector<ShardingType>;

/// The candidates that a search may use.
struct Restriction {
  TypeSet types = {};
  Allowed allowed = {};  // empty: all
};

Phases make_phases(const PlannerProblem& problem, PlannerObjective objective,
                   const Restriction& restriction);

}  // namespace serrate
