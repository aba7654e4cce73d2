#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "serrate/sharded_embedding.h"
#include "tests/support/on_host.h"
#include "tests/support/run_ranks.h"

// Training of one small table on ranks that are threads.

namespace serrate {

using Ids = std::vector<std::int64_t>;
using Floats = std::vector<float>;

inline constexpr ShardingType kTypes[] = {
    ShardingType::kDataParallel, ShardingType::kTableWise,    ShardingType::kRowWise,
    ShardingType::kColumnWise,   ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
    ShardingType::kGrid,
};

inline EmbeddingTable make_table(PoolingType pooling = PoolingType::kSum) {
  return {.name = "items", .num_rows = 4, .dim = 8, .pooling = pooling, .features = {"item"}};
}

// Types that need nodes have two of two ranks, the table on the second node or from there on.
inline int world_of(ShardingType type, int num_ranks) {
  return needs_nodes(type) ? 4 : num_ranks;
}

inline ShardingPlan plan_of(const EmbeddingTable& table, ShardingType type, int world_size) {
  if (!needs_nodes(type)) return {world_size, {shard_table(table, type, world_size)}};
  return {world_size, {shard_table(table, type, world_size, 3, 2)}, 2};
}

inline EmbeddingOptions sgd(InvalidIds invalid_ids = InvalidIds::kError) {
  EmbeddingOptions options;
  options.optimizer = {.type = SparseOptimizer::kSgd, .learning_rate = 1.0f};
  options.invalid_ids = invalid_ids;
  return options;
}

inline KeyedJaggedTensor items(const std::vector<Ids>& bags, const Floats& weights,
                               const Stream& stream) {
  Ids values, offsets{0};
  for (const Ids& bag : bags) {
    values.insert(values.end(), bag.begin(), bag.end());
    offsets.push_back(std::ssize(values));
  }
  return {{"item"},
          {std::ssize(bags)},
          {std::ssize(values)},
          {std::span<const std::int64_t>(values), stream},
          {std::span<const std::int64_t>(offsets), stream},
          {std::span<const float>(weights), stream}};
}

// One rank of the first table's training.
struct Rank {
  Stream stream;
  ShardedEmbedding embedding;
  EmbeddingExchange exchange;

  Rank(const std::vector<EmbeddingTable>& tables, ShardingPlan plan,
       const EmbeddingOptions& options, Communicator& communicator, Device device = Device::cpu())
      : stream(device), embedding(tables, std::move(plan), options, communicator, stream) {}

  // Row r, column c holds 100 r + c.
  void set_weights() {
    for (const LocalShard& local : embedding.local_shards()) {
      Floats values;
      for (std::int64_t r = local.shard.row_begin; r < local.shard.row_end; ++r) {
        for (std::int64_t c = local.shard.column_begin; c < local.shard.column_end; ++c) {
          values.push_back(static_cast<float>(100 * r + c));
        }
      }
      copy_from_host(MatrixView<const float>(values.data(), local.weights.rows, local.weights.cols),
                     local.weights.as<float>(), stream);
    }
  }

  void forward(const std::vector<Ids>& bags, const Floats& weights = {}) {
    embedding.input_dist(items(bags, weights, stream), exchange, stream);
    look_up(exchange);
  }
  void look_up(EmbeddingExchange& batch) {
    embedding.lookup(batch, stream);
    embedding.output_dist(batch, stream);
  }
  // All gradients are the same.
  void backward(float gradient, std::int64_t step) {
    const DeviceMatrix<float> d_output = exchange.d_output(0);
    copy_from_host<float>(Floats(d_output.flat().size(), gradient), d_output.flat(), stream);
    embedding.output_dist_backward(exchange, stream);
    embedding.update(exchange, step, stream);
  }

  // Column c of bag b is expected[b] + factors[b] c.
  void expect_rows(const Floats& expected, const Floats& factors) {
    expect_rows(exchange, expected, factors);
  }
  void expect_rows(const EmbeddingExchange& batch, const Floats& expected, const Floats& factors) {
    const DeviceMatrix<const float> output = batch.output(0);
    ASSERT_EQ(output.rows, std::ssize(expected));
    ASSERT_EQ(output.cols, 8);
    const Floats values = on_host(output, stream);
    for (std::int64_t i = 0; i < std::ssize(values); ++i) {
      EXPECT_EQ(values[i], expected[i / 8] + factors[i / 8] * static_cast<float>(i % 8))
          << "bag " << i / 8 << " column " << i % 8;
    }
  }
};

// Runs body on every rank and returns what each threw, by rank.
inline std::vector<std::string> errors_of(int world_size,
                                          const std::function<void(Communicator&)>& body) {
  std::vector<std::string> errors(world_size, "nothing was thrown");
  run_ranks(world_size, [&](Communicator& communicator) {
    try {
      body(communicator);
    } catch (const Error& error) {
      errors[communicator.rank()] = error.what();
    }
    communicator.barrier("end");
  });
  return errors;
}

inline void expect_on_every_rank(const std::vector<std::string>& errors, const std::string& part) {
  for (const std::string& error : errors) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(error, errors[0]);
  }
}

}  // namespace serrate
