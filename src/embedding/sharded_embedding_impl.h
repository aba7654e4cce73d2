#pragma once

#include <memory>

#include "src/embedding/exchange_state.h"
#include "src/embedding/routing.h"

namespace serrate {

/// The memory of one shard of this rank. Optimizer state is as EmbeddingUpdate has it; what is as
/// wide as a row lies behind the row's weights, so that an update meets one run of memory.
struct ShardStorage {
  ShardPlace place;
  std::int64_t num_arrays = 1;  ///< of the shard's columns in a row: weights, state, second moment
  Buffer<float> rows;           ///< [shard rows, num_arrays, shard columns]
  Buffer<float> row_state;      ///< [shard rows], or empty

  DeviceMatrix<float> weights() { return array(0); }
  DeviceMatrix<float> state() {
    if (row_state.size() > 0) return {row_state.device_data(), row_state.size(), 1};
    return array(1);
  }
  DeviceMatrix<float> second_moment() { return array(2); }

 private:
  DeviceMatrix<float> array(std::int64_t i) {
    if (i >= num_arrays) return {};
    const std::int64_t columns = place.shard.num_columns();
    return {rows.device_data() + i * columns, place.shard.num_rows(), columns,
            num_arrays * columns};
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
  // If tables go through nodes: the ranks with this one's place in each node, and this node's.
  std::unique_ptr<Communicator> across_nodes, within_node;
  std::int64_t invalid_ids = 0;
};

}  // namespace serrate
