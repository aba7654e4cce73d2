#include "src/run/machines.h"

#include <unistd.h>

#include <algorithm>
#include <array>

namespace serrate {

std::int64_t Machines::num_ranks(int machine) const {
  return std::ranges::count(of_rank, machine);
}

int Machines::ranks_per_node() const {
  const auto world_size = static_cast<int>(of_rank.size());
  const int in_node = world_size / static_cast<int>(memory.size());
  for (int rank = 0; rank < world_size; ++rank) {
    if (of_rank[rank] != rank / in_node) return world_size;
  }
  return in_node;
}

Machines find_machines(Communicator& communicator) {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  const auto names = communicator.gather_strings("machine name", name.data());
  const MachineMemory here = machine_memory();
  const auto total = communicator.gather_int64("machine memory", here.total);
  const auto available = communicator.gather_int64("available memory", here.available);
  Machines machines;
  for (std::size_t rank = 0; rank < names.size(); ++rank) {
    const auto first = std::ranges::find(names, names[rank]) - names.begin();
    if (first == static_cast<std::ptrdiff_t>(rank)) {
      machines.of_rank.push_back(static_cast<int>(machines.memory.size()));
      machines.memory.push_back({total[rank], available[rank]});
      continue;
    }
    const int machine = machines.of_rank[first];
    machines.of_rank.push_back(machine);
    MachineMemory& memory = machines.memory[machine];
    memory.total = std::min(memory.total, total[rank]);
    memory.available = std::min(memory.available, available[rank]);
  }
  return machines;
}

PlannerTopology topology_of(const Machines& machines, int ranks_per_node) {
  PlannerTopology t{.device = PlannerDevice::kCpu,
                    .world_size = static_cast<int>(machines.of_rank.size())};
  t.ranks_per_node = ranks_per_node > 0 ? ranks_per_node : machines.ranks_per_node();
  t.reserve = 0.15;  // of the memory: for the system, batches read ahead, stacks
  t.intra_node_bandwidth = 10e6;
  t.inter_node_bandwidth = 10e6;
  t.intra_node_latency = 0.005;
  t.inter_node_latency = 0.03;
  t.device_bytes.assign(t.world_size, 0);
  for (const int machine : machines.of_rank) {
    t.host_bytes.push_back(machines.memory[machine].total / machines.num_ranks(machine));
  }
  return t;
}

}  // namespace serrate
