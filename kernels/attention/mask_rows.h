#pragma once

#include "kernels/attention/mask.h"

namespace serrate {

/// From a query to its own key.
std::int64_t window_shift(const WindowMask& mask, std::int64_t num_queries, std::int64_t num_keys);

/// The keys that each query of a tile sees, for the masks that are not simpler than that. What the
/// ranges hold outside of the sequence's keys does not count.
void key_ranges(const AttentionForward& args, QueryTileMask& queries);

}  // namespace serrate
