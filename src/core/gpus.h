#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/stream.h"

namespace serrate {

/// The GPUs that this process may use, as CUDA numbers them.
struct Gpus {
  std::vector<std::string> addresses;  ///< on the PCI bus: no two of a machine have the same
  std::string why_none;                ///< empty where there are some
};
Gpus find_gpus();

/// In bytes, of one GPU.
struct GpuMemory {
  std::int64_t total = 0;
  std::int64_t available = 0;  ///< to new buffers
};
GpuMemory gpu_memory(Device device);

/// What its code is compiled for: "sm_90".
std::string gpu_architecture(Device device);

}  // namespace serrate
