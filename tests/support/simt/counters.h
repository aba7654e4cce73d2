#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace simt {

/// What a kernel did since reset_counters(), over all its launches. Before the first of those,
/// accesses are not counted: it takes time.
struct KernelCounters {
  std::string kernel;
  std::uint64_t launches = 0, blocks = 0, threads = 0;
  // Bytes that threads asked for, and 32-byte sectors that the accesses of a warp, together,
  // touch: sectors * 32 / bytes is 1 when every byte fetched is used once.
  std::uint64_t global_read_bytes = 0, global_written_bytes = 0;
  std::uint64_t global_read_sectors = 0, global_written_sectors = 0;
  std::uint64_t shared_bytes = 0;
  // Passes over shared memory beyond the first of each access of a warp.
  std::uint64_t shared_bank_conflicts = 0;
  // To and from shared memory of other blocks of the cluster, by threads and copies; 32-byte
  // sectors as above.
  std::uint64_t cluster_bytes = 0, cluster_sectors = 0;
  std::uint64_t atomics = 0, tensor_core_operations = 0;
};

/// In the order of first launch.
std::vector<KernelCounters> kernel_counters();
/// The counters of a kernel by its name; all zero when it did not run.
KernelCounters kernel_counters(const std::string& name);
void reset_counters();
/// Products that cuBLAS and cuBLASLt were asked for since the program began.
std::uint64_t products_queued();

}  // namespace simt
