#pragma once

#include <span>
#include <string>

#include "serrate/nccl_communicator.h"

namespace serrate {

/// Which GPU of which machine: the same for two ranks that have the same one.
std::string gpu_identity(Device device);

/// Error (usage) when two ranks have the same GPU, by what gpu_identity says of each, and may not.
/// Where they may, NCCL is led to take them for ranks of different machines, by environment
/// variables that it reads when the process first starts it.
void prepare_gpu_sharing(std::span<const std::string> identities, int rank, Device device,
                         GpuSharing sharing);

}  // namespace serrate
