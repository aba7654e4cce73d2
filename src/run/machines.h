#pragma once

#include <cstdint>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/planner.h"
#include "src/io/machine_memory.h"

namespace serrate {

/// Which ranks share a machine, and what memory it has to give; the same on every rank.
struct Machines {
  std::vector<int> of_rank;           ///< [world_size], numbered from 0 by first rank
  std::vector<MachineMemory> memory;  ///< [number of machines], the least that its ranks found

  std::int64_t num_ranks(int machine) const;
  /// A node is a machine when each has equally many consecutive ranks; otherwise all ranks
  /// are one node.
  int ranks_per_node() const;
};

/// Collective.
Machines find_machines(Communicator& communicator);

/// For the planner: an equal share of its machine's memory for each rank, of which tables leave a
/// part, and round figures for ranks that are processes of one machine, or of several on 100 Gb/s
/// Ethernet. Nodes are the machines, or runs of `ranks_per_node` ranks when that is above 0.
PlannerTopology topology_of(const Machines& machines, int ranks_per_node);

}  // namespace serrate
