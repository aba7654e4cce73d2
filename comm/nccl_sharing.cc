#include "comm/nccl_sharing.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <map>
#include <utility>

#include "comm/machine.h"
#include "src/core/cuda_check.h"

namespace serrate {
namespace {

/// NCCL takes ranks with different NCCL_HOSTID for ranks of different machines. Between those it
/// knows the network alone; all other transports are switched off, with what needs much memory.
void set_environment(int rank) {
  const std::string host_id = fmt::format("rank{}", rank);
  const std::pair<const char*, const char*> variables[] = {
      {"NCCL_HOSTID", host_id.c_str()}, {"NCCL_NET", "Socket"},      {"NCCL_IB_DISABLE", "1"},
      {"NCCL_P2P_DISABLE", "1"},        {"NCCL_SHM_DISABLE", "1"},   {"NCCL_MNNVL_ENABLE", "0"},
      {"NCCL_NVLS_ENABLE", "0"},        {"NCCL_CUMEM_ENABLE", "0"},  {"NCCL_RAS_ENABLE", "0"},
      {"NCCL_MAX_NCHANNELS", "2"},      {"NCCL_BUFFSIZE", "1048576"}};
  for (const auto& [name, value] : variables) setenv(name, value, 0);
}

}  // namespace

std::string gpu_identity(Device device) {
  std::array<char, 32> bus{};
  cuda_check(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device.index));
  return fmt::format("{} {}", machine_identity(), bus.data());
}

void prepare_gpu_sharing(std::span<const std::string> identities, int rank, Device device,
                         GpuSharing sharing) {
  std::map<std::string, int> ranks;
  bool shared = false;
  for (int r = 0; r < std::ssize(identities); ++r) {
    const auto [other, is_new] = ranks.emplace(identities[r], r);
    if (is_new) continue;
    if (sharing == GpuSharing::kRefused) {
      throw usage_error(fmt::format(
          "ranks {} and {} have the same GPU ({} on rank {}; NCCL needs one for each rank): start "
          "as many ranks on a machine as it has GPUs, and give each a GPU of its own",
          other->second, r, to_string(device), rank));
    }
    shared = true;
  }
  if (shared) set_environment(rank);
}

}  // namespace serrate
