#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sharding/planner/problem.h"

namespace serrate {

/// An item that fits nowhere beside what the others take of every rank, at most.
struct Misfit {
  int item = 0;
  std::int64_t device_bytes = 0;
  std::int64_t host_bytes = 0;
};

/// Which candidates of each item there are to choose from.
using Allowed = std::vector<std::vector<bool>>;

/// Takes out the candidates that are in no placement within the memory: those that do not fit
/// beside what the other items take of a rank wherever they are put, as they have to be on all
/// ranks. What is taken out may leave an item on all ranks only, so that others do not fit any
/// more. Returns an item that would be left without a candidate, if there is one.
std::optional<Misfit> take_out_misfits(const PlannerProblem& problem, Allowed& allowed);
/// The same for all candidates of the problem.
std::optional<Misfit> drop_misfits(PlannerProblem& problem);

}  // namespace serrate
