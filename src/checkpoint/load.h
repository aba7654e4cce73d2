#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "serrate/checkpoint.h"
#include "serrate/communicator.h"

namespace serrate {

/// The newest checkpoint whose manifest is intact, without its values: what has to be known to
/// build the model that they go to. As load_checkpoint otherwise. Collective.
std::optional<LoadedCheckpoint> read_newest_manifest(const std::string& directory,
                                                     Communicator& communicator);

/// As load_checkpoint, but for an embedding of any optimizer and some of the tensors: their weights
/// alone are read.
std::optional<LoadedCheckpoint> load_weights(const std::string& directory,
                                             const CheckpointState& state,
                                             Communicator& communicator, const Stream& stream);

}  // namespace serrate
