// The key property on GPUs: k steps on W of them equal k unsharded steps on the CPU.

#include <gtest/gtest.h>

#include <tuple>

#include "tests/support/test_streams.h"
#include "tests/train/outcome.h"

namespace serrate {
namespace {

struct Sharding {
  SparseOptimizer optimizer;
  Distribution how;
};

class DeviceTrainStepTest : public testing::TestWithParam<std::tuple<Device, Sharding>> {};

// The third batch is one of few sequences.
TEST_P(DeviceTrainStepTest, EqualsUnshardedStepsOnTheCpu) {
  constexpr int kSteps = 3;
  auto [device, sharding] = GetParam();
  SmallTraining training;
  training.options.sparse_optimizer = {
      .type = sharding.optimizer, .learning_rate = 0.05f, .eps = 1e-4f};
  sharding.how.device = device;
  expect_close(train_unsharded(training, kSteps), train(training, kSteps, sharding.how));
}

using enum ShardingType;

INSTANTIATE_TEST_SUITE_P(
    Shardings, DeviceTrainStepTest,
    testing::Combine(
        testing::ValuesIn(test_devices()),
        testing::Values(Sharding{SparseOptimizer::kSgd, {kTableWise, kTableWise, 1}},
                        Sharding{SparseOptimizer::kAdam, {kDataParallel, kTableWise, 2}},
                        Sharding{SparseOptimizer::kRowWiseAdagrad, {kColumnWise, kRowWise, 2}},
                        Sharding{SparseOptimizer::kAdagrad, {kRowWise, kDataParallel, 3}},
                        Sharding{SparseOptimizer::kRowWiseAdagrad,
                                 {kTableRowWise, kTableColumnWise, 2}},
                        Sharding{SparseOptimizer::kSgd, {kGrid, kColumnWise, 4}})),
    [](const auto& p) {
      const Sharding& sharding = std::get<Sharding>(p.param);
      return to_string(sharding.optimizer) + "_" + to_string(sharding.how.items) + "_and_" +
             to_string(sharding.how.countries) + "_" + std::to_string(sharding.how.world_size);
    });

}  // namespace
}  // namespace serrate
