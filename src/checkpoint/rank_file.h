#pragma once

#include <atomic>
#include <string>

#include "serrate/checkpoint.h"
#include "src/checkpoint/manifest.h"
#include "src/checkpoint/rank_content.h"

namespace serrate {

/// Writes the file and makes it durable. Throws Error when `cancelled` becomes true.
ManifestFile write_rank_file(const std::string& path, const RankContent& content,
                             const std::atomic<bool>& cancelled, const Stream& stream);

/// What of a checkpoint is read.
enum class LoadedParts { kAll, kWeights };

/// Reads what this rank needs of a checkpoint, out of the files that have it, and verifies all that
/// it reads; the manifest is of the model of `state`. The ranks together verify that every file is
/// there and is the one of the manifest.
void read_checkpoint(const std::string& checkpoint, const Manifest& manifest,
                     const CheckpointState& state, LoadedParts what,
                     const Communicator& communicator, const Stream& stream);

/// Reads all of the files of a checkpoint for nothing but their checksums.
void verify_checkpoint(const std::string& checkpoint, const Manifest& manifest);

}  // namespace serrate
