#pragma once

#include <cstdint>
#include <string>

namespace serrate {

/// In bytes, of this machine or, where that is less, of the control groups (versions 1 and 2) that
/// this process is in.
struct MachineMemory {
  std::int64_t total = 0;
  std::int64_t available = 0;  ///< that may still be allocated; files in the cache count as free
};

/// `root` is where /proc and /sys/fs/cgroup are.
MachineMemory machine_memory(const std::string& root = "");

}  // namespace serrate
