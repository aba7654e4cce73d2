// What the planner says a rank will hold, against what the runtime allocates.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "serrate/planner.h"
#include "serrate/sharded_embedding.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

constexpr std::int64_t kBatchSize = 600;

struct Configuration {
  ShardingType type;
  SparseOptimizer optimizer;
  int world_size;
  std::int64_t dim;
  std::int64_t ids_per_bag;
  bool weighted = false;
  DataType data_type = DataType::kFloat32;

  std::string name() const {
    return fmt::format("{} {} on {} ranks, dim {}, {}, {} ids{}", to_string(type),
                       to_string(optimizer), world_size, dim, to_string(data_type), ids_per_bag,
                       weighted ? ", weighted" : "");
  }
};

std::vector<Configuration> configurations() {
  using enum SparseOptimizer;
  std::vector<Configuration> all;
  for (const ShardingType type :
       {ShardingType::kDataParallel, ShardingType::kTableWise, ShardingType::kRowWise,
        ShardingType::kColumnWise, ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
        ShardingType::kGrid}) {
    all.insert(all.end(), {{type, kSgd, 2, 32, 1},
                           {type, kAdagrad, 4, 16, 6},
                           {type, kRowWiseAdagrad, 2, 64, 20},
                           {type, kRowWiseAdagrad, 4, 32, 1},
                           {type, kRowWiseAdagrad, 4, 16, 3, true, DataType::kFloat16},
                           {type, kAdam, 4, 48, 5, false, DataType::kBFloat16},
                           {type, kAdam, 2, 16, 2, true}});
  }
  return all;
}

// One table with two features and one with one.
std::vector<EmbeddingTable> tables_of(const Configuration& c) {
  return {{.name = "items",
           .num_rows = 5000,
           .dim = c.dim,
           .features = {"history", "target"},
           .data_type = c.data_type},
          {.name = "users", .num_rows = 999, .dim = 2 * c.dim, .features = {"user"}}};
}

PlannerModel model_of(const Configuration& c) {
  PlannerModel model{.batch_size = kBatchSize};
  for (const EmbeddingTable& table : tables_of(c)) {
    model.tables.push_back(
        {.name = table.name, .num_rows = table.num_rows, .dim = table.dim, .weighted = c.weighted});
    model.tables.back().bytes_per_element = size_of(table.data_type);
    model.tables.back().optimizer = c.optimizer;
    for (const std::string& feature : table.features) {
      model.tables.back().features.push_back(
          {.pooling_factor = feature == "target" ? 1.0 : static_cast<double>(c.ids_per_bag)});
    }
  }
  return model;
}

ShardingPlan plan_of(const Configuration& c) {
  const int in_node = c.world_size / 2;
  ShardingPlan plan{.world_size = c.world_size, .tables = {}, .ranks_per_node = in_node};
  const auto tables = tables_of(c);
  for (int t = 0; t < std::ssize(tables); ++t) {
    plan.tables.push_back(
        shard_table(tables[t], c.type, c.world_size, t * (c.world_size - 1), in_node));
  }
  return plan;
}

KeyedJaggedTensor batch_of(const Configuration& c, int rank, int step, const Stream& stream) {
  std::mt19937 random(rank * 17 + step);
  std::vector<std::string> keys;
  std::vector<std::int64_t> values, offsets{0}, bags_per_key, values_per_key;
  for (const EmbeddingTable& table : tables_of(c)) {
    for (const std::string& feature : table.features) {
      const std::int64_t ids = feature == "target" ? 1 : c.ids_per_bag;
      for (std::int64_t bag = 0; bag < kBatchSize; ++bag) {
        for (std::int64_t i = 0; i < ids; ++i) values.push_back(random() % table.num_rows);
        offsets.push_back(std::ssize(values));
      }
      keys.push_back(feature);
      bags_per_key.push_back(kBatchSize);
      values_per_key.push_back(kBatchSize * ids);
    }
  }
  const std::vector<float> weights(c.weighted ? values.size() : 0, 0.5f);
  return {keys,
          bags_per_key,
          values_per_key,
          {std::span<const std::int64_t>(values), stream},
          {std::span<const std::int64_t>(offsets), stream},
          {std::span<const float>(weights), stream}};
}

void expect_within(double part, std::int64_t predicted, std::int64_t allocated) {
  EXPECT_NEAR(static_cast<double>(predicted), static_cast<double>(allocated),
              part * static_cast<double>(allocated))
      << 100.0 * (static_cast<double>(predicted) / static_cast<double>(allocated) - 1) << " %";
}

TEST(PredictMemory, IsWhatTheRuntimeAllocates) {
  for (const Configuration& c : configurations()) {
    SCOPED_TRACE(c.name());
    const std::vector<RankMemory> predicted = predict_memory(model_of(c), plan_of(c));
    std::vector<RankMemory> allocated(c.world_size);
    run_ranks(c.world_size, [&](Communicator& communicator) {
      const Stream stream;
      const int rank = communicator.rank();
      EmbeddingOptions options;
      options.optimizer.type = c.optimizer;
      ShardedEmbedding embedding(tables_of(c), plan_of(c), options, communicator, stream);
      EmbeddingExchange exchange;
      for (int step = 1; step <= 2; ++step) {
        embedding.input_dist(batch_of(c, rank, step, stream), exchange, stream);
        embedding.lookup(exchange, stream);
        embedding.output_dist(exchange, stream);
        for (std::int64_t l = 0; l < std::ssize(embedding.lookups()); ++l) {
          const MatrixView<float> gradient = host_view(exchange.d_output(l), stream);
          std::fill_n(gradient.data, gradient.rows * gradient.cols, 0.1f);
        }
        embedding.output_dist_backward(exchange, stream);
        embedding.update(exchange, step, stream);
      }
      EmbeddingInput ahead;
      embedding.input_dist(batch_of(c, rank, 2, stream), ahead, stream);
      allocated[rank] = {embedding.weight_bytes(), embedding.optimizer_bytes(), exchange.bytes(),
                         ahead.bytes()};
    });
    for (int rank = 0; rank < c.world_size; ++rank) {
      SCOPED_TRACE(fmt::format("rank {}", rank));
      EXPECT_EQ(predicted[rank].weights, allocated[rank].weights);
      EXPECT_EQ(predicted[rank].optimizer, allocated[rank].optimizer);
      expect_within(0.05, predicted[rank].exchange, allocated[rank].exchange);
      expect_within(0.05, predicted[rank].ahead, allocated[rank].ahead);
      expect_within(0.05, predicted[rank].total(), allocated[rank].total());
    }
  }
}

}  // namespace
}  // namespace serrate
