#pragma once

#include <chrono>
#include <functional>

#include "serrate/communicator.h"
#include "serrate/planner.h"

namespace serrate {

/// What the planner needs to know of the machines that these ranks are on, measured by all of them
/// at once as in a training: bandwidths of copies, of lookups and updates of random rows and of
/// exchanges, the latency of a message. Takes seconds. Nodes are the machines, or runs of
/// `ranks_per_node` ranks when that is above 0. What cannot be seen from these ranks (no link, one
/// node, one rank) keeps the planner's default. Collective; the same on every rank.
/// `clock` tells the time of this rank.
PlannerTopology calibrate(
    int ranks_per_node, Communicator& communicator, const Stream& stream,
    const std::function<std::chrono::nanoseconds()>& clock = [] {
      return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch());
    });

}  // namespace serrate
