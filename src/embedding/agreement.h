#pragma once

#include <span>

#include "serrate/sharded_embedding.h"

namespace serrate {

/// Collective. Throws the same Error (usage) on every rank unless all have the same tables, plan
/// and options; it names the first field that differs and the first rank that differs from rank 0.
void check_agreement(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     const EmbeddingOptions& options, Communicator& communicator);

}  // namespace serrate
