#pragma once

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

}  // namespace serrate
