// The key property: k steps on W ranks equal k steps on one, for every sharding and optimizer.

#include "src/train/train_step.h"

#include <gtest/gtest.h>

#include "tests/train/outcome.h"

namespace serrate {
namespace {

constexpr int kSteps = 10;

using Case = std::tuple<SparseOptimizer, std::pair<ShardingType, ShardingType>>;

class TrainStepTest : public testing::TestWithParam<Case> {};

TEST_P(TrainStepTest, ManyRanksEqualOne) {
  const auto [optimizer, types] = GetParam();
  SmallTraining training;
  training.options.sparse_optimizer = {.type = optimizer, .learning_rate = 0.05f, .eps = 1e-4f};
  const Outcome one = train_unsharded(training, kSteps);
  for (const int world_size : {1, 2, 3, 4}) {
    SCOPED_TRACE(world_size);
    expect_close(one, train(training, kSteps, {types.first, types.second, world_size}));
  }
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto [optimizer, types] = info.param;
  const std::string mixed = types.first == types.second ? "" : "_and_" + to_string(types.second);
  return to_string(optimizer) + "_" + to_string(types.first) + mixed;
}

INSTANTIATE_TEST_SUITE_P(
    AllShardings, TrainStepTest,
    testing::Combine(
        testing::Values(SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                        SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam),
        testing::Values(std::pair{ShardingType::kDataParallel, ShardingType::kDataParallel},
                        std::pair{ShardingType::kTableWise, ShardingType::kTableWise},
                        std::pair{ShardingType::kRowWise, ShardingType::kRowWise},
                        std::pair{ShardingType::kColumnWise, ShardingType::kColumnWise},
                        std::pair{ShardingType::kTableRowWise, ShardingType::kTableRowWise},
                        std::pair{ShardingType::kGrid, ShardingType::kTableColumnWise},
                        std::pair{ShardingType::kRowWise, ShardingType::kDataParallel})),
    case_name);

TEST(TrainStepLearningTest, LearnsABatchByHeart) {
  SmallTraining training;
  training.options.model.dropout = 0;
  run_ranks(2, [&](Communicator& communicator) {
    const Stream stream;
    const auto tables = training.tables();
    TrainState state(tables, default_plan(tables, 2), training.options, communicator, stream);
    const NextItemBatch batch = training.batch(1, communicator.rank(), 2, stream);
    const double first = train_step(state, batch, 1).loss;
    double last = 0;
    for (int step = 2; step <= 60; ++step) last = train_step(state, batch, step).loss;
    EXPECT_LT(last, 0.1 * first);
  });
}

TEST(TrainStepThreadsTest, ThreadsOfARankChangeNoBit) {
  SmallTraining training;
  const auto losses = [&](int threads) {
    std::vector<double> result;
    run_ranks(2, [&](Communicator& communicator) {
      const Stream stream(Device::cpu(), threads);
      const auto tables = training.tables();
      TrainState state(tables, default_plan(tables, 2), training.options, communicator, stream);
      for (int step = 1; step <= 5; ++step) {
        const auto batch = training.batch(step, communicator.rank(), 2, stream);
        const double loss = train_step(state, batch, step).loss;
        if (communicator.rank() == 0) result.push_back(loss);
      }
    });
    return result;
  };
  EXPECT_EQ(losses(1), losses(2));
}

}  // namespace
}  // namespace serrate
