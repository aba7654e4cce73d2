#pragma once

#include "src/embedding/exchange_state.h"
#include "src/embedding/routing.h"

namespace serrate {

/// The memory of one shard of this rank. Optimizer state is as EmbeddingUpdate has it.
struct ShardStorage {
  ShardPlace place;
  Buffer<float> weights;
  Buffer<float> state;
  Buffer<float> second_moment;

  MatrixView<float> weights_view() { return view(weights); }
  MatrixView<float> state_view() { return view(state); }
  MatrixView<float> second_moment_view() { return view(second_moment); }

 private:
  // Whole rows, single values per row or nothing.
  MatrixView<float> view(Buffer<float>& buffer) const {
    if (buffer.size() == 0) return {};
    const std::int64_t rows = place.shard.num_rows();
    return {buffer.data(), rows, buffer.size() / rows};
  }
};

struct ShardedEmbedding::Impl {
  std::vector<EmbeddingTable> tables;
  ShardingPlan plan;
  EmbeddingOptions options;
  Communicator& communicator;
  std::vector<EmbeddingLookup> lookups;
  Routing routing;
  std::vector<ShardStorage> shards;
  std::int64_t invalid_ids = 0;
};

}  // namespace serrate
