#include "src/run/planner_model.h"

#include <gtest/gtest.h>

#include <random>

#include "sharding/estimate/zipf.h"
#include "src/model/model_bytes.h"
#include "src/train/next_item_batch.h"
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

}  // namespace
}  // namespace serrate
