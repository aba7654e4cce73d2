#pragma once

#include <cstdint>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/planner.h"
#include "src/io/machine_memory.h"

namespace serrate {

/// Which ranks share a memory, and what each memory has to give.
struct SharedMemory {
  std::vector<int> of_rank;           ///< [world_size], numbered from 0 by first rank
  std::vector<MachineMemory> memory;  ///< the least that its ranks found

  std::int64_t num_ranks(int memory_number) const;
};

/// The memory of machines and, of ranks on GPUs, of those; the same on every rank.
struct Machines {
  SharedMemory host;
  SharedMemory gpus = {};  ///< none on the CPU

  int world_size() const { return static_cast<int>(host.of_rank.size()); }
  DeviceType device_type() const {
    return gpus.memory.empty() ? DeviceType::kCpu : DeviceType::kCuda;
  }
  /// A node is a machine when each has equally many consecutive ranks; otherwise all ranks
  /// are one node.
  int ranks_per_node() const;
};

/// Collective; `device` is this rank's.
Machines find_machines(Communicator& communicator, Device device);

/// For the planner: an equal share of its machine's memory for each rank and, on GPUs, of its
/// GPU's, of which tables leave a part, and round figures for ranks that are processes of one
/// machine, or of several on 100 Gb/s Ethernet; on GPUs the bandwidths are those of
/// PlannerTopology. Nodes are the machines, or runs of `ranks_per_node` ranks when that is above 0.
PlannerTopology topology_of(const Machines& machines, int ranks_per_node);

}  // namespace serrate
