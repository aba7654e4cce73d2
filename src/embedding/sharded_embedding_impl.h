#pragma once

#include <memory>

#include "src/embedding/exchange_state.h"
#include "src/embedding/routing.h"

namespace serrate {

/// The memory of one shard of this rank. Optimizer state is as EmbeddingUpdate has it; what is as
/// wide as a row lies behind the row's weights, so that an update meets one run of memory; but
/// weights of 16 bits have their own.
struct ShardStorage {
  ShardPlace place;
  DataType data_type = DataType::kFloat32;  ///< of the weights
  std::int64_t num_arrays = 0;    ///< in a row of `rows`: float32 weights, state, second moment
  Buffer<float> rows;             ///< [shard rows, num_arrays, shard columns]
  Buffer<std::uint16_t> rounded;  ///< weights of 16 bits [shard rows, shard columns], or empty
  Buffer<float> row_state;        ///< [shard rows], or empty

  OutputMatrix weights() {
    if (data_type == DataType::kFloat32) return array(0);
    return {rounded.device_data(), data_type, place.shard.num_rows(), place.shard.num_columns()};
  }
  DeviceMatrix<float> state() {
    if (row_state.size() > 0) return {row_state.device_data(), row_state.size(), 1};
    return array(first_state());
  }
  DeviceMatrix<float> second_moment() { return array(first_state() + 1); }
  std::int64_t weight_bytes() const {
    return place.shard.num_rows() * place.shard.num_columns() * size_of(data_type);
  }
  std::int64_t bytes() const { return rows.bytes() + rounded.bytes() + row_state.bytes(); }

 private:
  std::int64_t first_state() const { return data_type == DataType::kFloat32 ? 1 : 0; }
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
