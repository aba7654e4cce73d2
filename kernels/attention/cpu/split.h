#pragma once

#include <cstdint>

#include "kernels/attention/cpu/tile_mask.h"
#include "kernels/attention/view.h"

namespace serrate {

/// Columns of all heads of keys that a task with few rows takes, at most.
inline constexpr std::int64_t kMaxFewRowsColumns = 6144;

/// How a sequence is cut into tasks, a function of its own lengths and the call's options alone, so
/// that bits depend on nothing else.
struct AttentionSplit {
  std::int64_t heads, queries, keys;  ///< of a task, at most
  /// Its queries, in all heads that share keys, are so few that products take a vector of a row's
  /// columns, not one of queries.
  bool few_rows = false;
};

/// For the forward. Where queries are few, as in short sequences and in decoding, heads are packed
/// as rows of one tile, so that keys and values are read once and in the order of memory, and
/// vectors are full; long histories are cut into chunks of whole tiles of keys.
AttentionSplit forward_split(const AttentionView& args, std::int64_t sequence);

/// Floats that the tasks of a sequence leave to be combined, 0 if its keys are not cut: of each
/// chunk, head and query a row of head_dim, the maximum and the sum of softmax.
std::int64_t partials_of(const AttentionView& args, std::int64_t sequence,
                         const AttentionSplit& split);

/// Makes it the mask of the same queries in several heads, one after the other, in which every
/// score is read.
void repeat_queries(std::int64_t heads, TileMask& mask);

}  // namespace serrate
