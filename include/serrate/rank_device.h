#pragma once

#include <optional>
#include <string>

#include "serrate/communicator.h"
#include "serrate/stream.h"

namespace serrate {

/// Which device ranks are to work on, as options have it.
struct DeviceChoice {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  std::optional<int> index = {};  ///< of "cuda:N": that GPU for every rank
};
/// "auto", "cpu", "cuda" or "cuda:N"; Error (usage) otherwise.
DeviceChoice device_choice_from_string(const std::string& text);

/// Collective: the device of this rank. kAuto is a GPU if there is one for every rank, else the
/// CPU. Ranks that see the same GPUs of a machine have them in turn; where there are more ranks
/// than GPUs, some share one, which threads and MPI allow and make_nccl_communicator refuses. Error
/// (usage) when a rank does not see the GPU that it is to have.
Device choose_device(const DeviceChoice& choice, Communicator& communicator);

}  // namespace serrate
