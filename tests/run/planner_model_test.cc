#include "src/run/planner_model.h"

#include <gtest/gtest.h>

#include <random>

#include "serrate/sharded_embedding.h"
#include "sharding/estimate/zipf.h"
#include "src/model/model_bytes.h"
#include "src/train/next_item_batch.h"
#include "tests/support/run_ranks.h"
#include "tests/support/tiny_dataset.h"

namespace serrate {
namespace {

TEST(PlannerModel, CountsAnAverageStep) {
  // Users of 5, 4 and 1 events; the last of each is held out, so 3 + 2 targets are in windows of
  // at most 2: 2 + 1 windows.
  const Dataset dataset =
      tiny_dataset({{.items = {0, 1, 2, 3, 4}, .tags = {{7}, {7, 8}, {}, {9}, {1, 2, 3}}},
                    {.items = {5, 6, 7, 8}, .tags = {{}, {}, {}, {5}}},
                    {.items = {9}, .tags = {{}}}},
                   20);
  TrainOptions options;
  options.batch_size = 9;
  options.negatives = 6;
  options.sparse_optimizer.type = SparseOptimizer::kAdam;
  options.embedding_precision = DataType::kBFloat16;
  options.model.dim = 8;
  options.model.max_length = 2;
  options.model.features = {"tag"};
  const PlannerModel model =
      planner_model(dataset, make_split(dataset, SplitKind::kLastItem), options, 2);

  EXPECT_EQ(model.batch_size, 5);  // 9 sequences on 2 ranks: at most 5
  ASSERT_EQ(model.tables.size(), 2u);
  const PlannerTable& item = model.tables[0];
  EXPECT_EQ(item.name, "item");
  EXPECT_EQ(item.num_rows, 20);
  EXPECT_EQ(item.dim, 8);
  EXPECT_EQ(item.bytes_per_element, 2);
  EXPECT_EQ(item.min_columns, 32);  // a cache line
  EXPECT_EQ(item.optimizer, SparseOptimizer::kAdam);
  ASSERT_EQ(item.features.size(), 3u);  // inputs, targets, negatives
  EXPECT_DOUBLE_EQ(item.features[0].pooling_factor, 1);
  EXPECT_DOUBLE_EQ(item.features[0].num_poolings, 5.0 / 3);
  EXPECT_DOUBLE_EQ(item.features[1].num_poolings, 5.0 / 3);
  EXPECT_EQ(item.features[2].batch_size, 3);  // each rank looks up its part
  EXPECT_DOUBLE_EQ(item.zipf_exponent, 0);    // no id twice
  const PlannerTable& tag = model.tables[1];
  ASSERT_EQ(tag.features.size(), 1u);
  EXPECT_DOUBLE_EQ(tag.features[0].pooling_factor, 0.8);  // 8 tags in 10 events
  EXPECT_EQ(model.dense_bytes, parameter_bytes(options.model));
}

TEST(PlannerModel, RefusesDenseWeightsBeyondCounting) {
  // Just above 2^53 bytes: blocks of 12 dim^2 + 13 dim floats and a few.
  const Dataset dataset = tiny_dataset({{.items = {0, 1, 2}}}, 20);
  TrainOptions options;
  options.model.dim = 1 << 20;
  options.model.max_length = 2;
  const Split split = make_split(dataset, SplitKind::kLastItem);
  options.model.num_blocks = 170;
  EXPECT_EQ(planner_model(dataset, split, options, 1).dense_bytes, parameter_bytes(options.model));
  options.model.num_blocks = 171;
  try {
    planner_model(dataset, split, options, 1);
    FAIL() << "planned";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("--dim, --blocks"), std::string::npos) << error.what();
  }
}

TEST(PlannerModel, FindsTheExponentThatIdsWereDrawnWith) {
  constexpr int kItems = 1000;
  constexpr double kExponent = 1.1;
  std::vector<double> probabilities;
  for (int k = 1; k <= kItems; ++k) probabilities.push_back(std::pow(k, -kExponent));
  std::discrete_distribution<std::int64_t> draw(probabilities.begin(), probabilities.end());
  std::mt19937 random(4);
  std::vector<TinyUser> users(40);
  for (TinyUser& user : users) {
    for (int i = 0; i < 100; ++i) user.items.push_back(draw(random));
  }
  const Dataset dataset = tiny_dataset(users, kItems);
  const PlannerModel model =
      planner_model(dataset, make_split(dataset, SplitKind::kLastItem), {}, 1);
  EXPECT_NEAR(model.tables[0].zipf_exponent, kExponent, 0.1);
}

TEST(PlannerModel, CountsRowsOfIdsWhereReproducibleTablesAreCutByRows) {
  // 300 bags of 6 ids on each of 4 ranks.
  constexpr std::int64_t kBags = 300, kIds = 6;
  const std::vector<EmbeddingTable> tables{
      {.name = "tag", .num_rows = 5000, .dim = 16, .features = {"tag"}}};
  ShardingPlan plan{.world_size = 4, .tables = {}};
  plan.tables.push_back(shard_table(tables[0], ShardingType::kRowWise, 4, 0, 1));
  PlannerModel model{.batch_size = kBags};
  model.tables.push_back({.name = "tag", .num_rows = 5000, .dim = 16});
  model.tables[0].features = {{.name = "tag", .pooling_factor = kIds}};
  TrainOptions options;
  EXPECT_TRUE(exchanged_model(model, plan, options).tables[0].pooled);
  options.reproducible = true;
  const auto bytes_of = [&](const PlannerModel& m) {
    return static_cast<double>(predict_memory(m, plan)[1].exchange);
  };
  double allocated = 0;
  run_ranks(4, [&](Communicator& communicator) {
    const Stream stream;
    EmbeddingOptions in_id_order;
    in_id_order.split_bags = SplitBags::kIdOrder;
    ShardedEmbedding embedding(tables, plan, in_id_order, communicator, stream);
    std::mt19937 random(communicator.rank());
    std::vector<std::int64_t> values, offsets{0};
    for (std::int64_t i = 1; i <= kBags; ++i) offsets.push_back(i * kIds);
    while (std::ssize(values) < kBags * kIds) values.push_back(random() % 5000);
    EmbeddingExchange exchange;
    embedding.input_dist({{"tag"},
                          {kBags},
                          {kBags * kIds},
                          {std::span<const std::int64_t>(values), stream},
                          {std::span<const std::int64_t>(offsets), stream},
                          {std::span<const float>(), stream}},
                         exchange, stream);
    embedding.lookup(exchange, stream);
    embedding.output_dist(exchange, stream);
    embedding.output_dist_backward(exchange, stream);
    embedding.update(exchange, 1, stream);
    if (communicator.rank() == 1) allocated = static_cast<double>(exchange.bytes());
  });
  EXPECT_LT(bytes_of(model), 0.9 * allocated);
  const double predicted = bytes_of(exchanged_model(model, plan, options));
  EXPECT_GT(predicted, 0.95 * allocated);
  EXPECT_LT(predicted, 1.3 * allocated);
}

}  // namespace
}  // namespace serrate
