#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/checkpoint.h"
#include "src/checkpoint/manifest.h"

namespace serrate {

/// A shard's matrices in the order of matrix_kinds().
struct SavedShard {
  std::string table;
  Rectangle part;
  std::vector<InputMatrix> matrices;
};

struct SavedTensor {
  std::string name;
  InputMatrix values;
};

/// What the file of one rank holds. The values are somebody else's.
struct RankContent {
  SparseOptimizer optimizer = SparseOptimizer::kSgd;
  std::vector<SavedShard> shards;
  std::vector<SavedTensor> tensors;
  std::int64_t num_bytes() const;  // of a copy
};

/// What rank `rank` writes, as the state stands. Rank 0 has what all have: data-parallel tables and
/// tensors.
RankContent content_of(const CheckpointState& state, int rank);

/// Throws Error naming the tensor and the row of the first value that is not finite.
void check_finite(const RankContent& content, std::int64_t step, const Stream& stream);

/// A copy in host memory, whose values are in `memory`. Checks that they are finite on the way.
RankContent copy_content(const RankContent& content, std::int64_t step, Buffer<std::byte>& memory,
                         const Stream& stream);

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
