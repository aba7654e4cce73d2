#include "src/run/machines.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "comm/machine.h"
#include "src/core/gpus.h"

namespace serrate {
namespace {

/// Ranks that give the same name share the memory.
SharedMemory share(Communicator& communicator, const std::string& name,
                   const MachineMemory& memory) {
  const auto names = communicator.gather_strings("memory: name", name);
  const auto total = communicator.gather_int64("memory: total", memory.total);
  const auto available = communicator.gather_int64("memory: available", memory.available);
  SharedMemory shared;
  for (std::size_t rank = 0; rank < names.size(); ++rank) {
    const auto first = std::ranges::find(names, names[rank]) - names.begin();
    if (first == static_cast<std::ptrdiff_t>(rank)) {
      shared.of_rank.push_back(static_cast<int>(shared.memory.size()));
      shared.memory.push_back({total[rank], available[rank]});
      continue;
    }
    const int number = shared.of_rank[first];
    shared.of_rank.push_back(number);
    MachineMemory& least = shared.memory[number];
    least.total = std::min(least.total, total[rank]);
    least.available = std::min(least.available, available[rank]);
  }
  return shared;
}

std::vector<std::int64_t> bytes_of_ranks(const SharedMemory& shared) {
  std::vector<std::int64_t> bytes;
  for (const int number : shared.of_rank) {
    bytes.push_back(shared.memory[number].total / shared.num_ranks(number));
  }
  return bytes;
}

}  // namespace

std::int64_t SharedMemory::num_ranks(int memory_number) const {
  return std::ranges::count(of_rank, memory_number);
}

int Machines::ranks_per_node() const {
  const int in_node = world_size() / static_cast<int>(host.memory.size());
  for (int rank = 0; rank < world_size(); ++rank) {
    if (host.of_rank[rank] != rank / in_node) return world_size();
  }
  return in_node;
}

Machines find_machines(Communicator& communicator, Device device) {
  // Containers of one machine, which have memory of their own, mostly have names of their own;
  // machines of one name, such as localhost, differ.
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  const std::string machine = machine_identity();
  Machines machines{
      .host = share(communicator, fmt::format("{} {}", machine, name.data()), machine_memory())};
  if (device.type == DeviceType::kCpu) return machines;
  const std::string address = find_gpus().addresses[device.index];
  const GpuMemory memory = gpu_memory(device);
  machines.gpus =
      share(communicator, fmt::format("{} {}", machine, address), {memory.total, memory.available});
  return machines;
}

PlannerTopology topology_of(const Machines& machines, int ranks_per_node) {
  PlannerTopology t{.world_size = machines.world_size()};
  t.ranks_per_node = ranks_per_node > 0 ? ranks_per_node : machines.ranks_per_node();
  t.reserve = 0.15;  // of the memory: for the system, batches read ahead, stacks
  t.intra_node_latency = 0.005;
  t.inter_node_latency = 0.03;
  t.host_bytes = bytes_of_ranks(machines.host);
  t.device_bytes.assign(t.world_size, 0);
  if (machines.device_type() == DeviceType::kCuda) {
    t.device_bytes = bytes_of_ranks(machines.gpus);
    return t;
  }
  t.device = PlannerDevice::kCpu;
  t.intra_node_bandwidth = 10e6;
  t.inter_node_bandwidth = 10e6;
  return t;
}

}  // namespace serrate
