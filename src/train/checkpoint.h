#pragma once

#include <cstdint>
#include <string>

#include "serrate/communicator.h"
#include "serrate/sharded_embedding.h"
#include "src/model/dense_parameters.h"

namespace serrate {

/// The parts of a model that a checkpoint holds. Independent of world size and plan: shards carry
/// their global rows and columns (docs/checkpoint_format.md).
struct CheckpointParts {
  ShardedEmbedding& embedding;
  DenseParameters& dense;
};

/// Writes `directory`/step_N: one HDF5 file per rank in a temporary folder, each flushed to disk, a
/// manifest with sizes and CRC32C sums, then one rename; only then are older checkpoints removed.
/// Collective; any rank's error is every rank's.
void save_checkpoint(const std::string& directory, std::int64_t step, const CheckpointParts& parts,
                     Communicator& communicator, const Stream& stream);

/// Reads the newest checkpoint whose manifest and checksums hold, saying on stderr which ones were
/// passed over and why, into parts of any world size and plan. Returns its step. Collective.
std::int64_t load_checkpoint(const std::string& directory, const CheckpointParts& parts,
                             Communicator& communicator, const Stream& stream);

}  // namespace serrate
