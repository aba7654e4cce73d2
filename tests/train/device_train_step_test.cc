// The key property on GPUs: k steps on W of them equal k unsharded steps on the CPU.

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "tests/support/test_streams.h"
#include "tests/train/bf16_bound.h"
#include "tests/train/outcome.h"

namespace serrate {
namespace {

struct Sharding {
  SparseOptimizer optimizer;
  Distribution how;
};

class DeviceTrainStepTest : public testing::TestWithParam<std::tuple<Device, Sharding>> {};

// Each type, optimizer and number of ranks once: the model meets a plan in the outputs that it
// reads and the gradients that it writes, whose values and updates device_equivalence_test has
// under all types x optimizers x ranks. The third batch is one of few sequences.
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

/// How far a training took a tensor from where it was.
std::vector<double> movement(const Outcome& from, const Outcome& to, const std::string& name) {
  const std::vector<float>& before = from.tensors.at(name);
  std::vector<double> result(to.tensors.at(name).begin(), to.tensors.at(name).end());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] -= before[i];
  return result;
}

class Bf16TrainStepTest : public testing::TestWithParam<Device> {};

TEST_P(Bf16TrainStepTest, StepsOnOneAndTwoRanksEqualThoseInFp32) {
  constexpr int kSteps = 3;
  const Device device = GetParam();
  SmallTraining training;
  training.options.sparse_optimizer = {.type = SparseOptimizer::kSgd, .learning_rate = 0.05f};
  // So that a step is nearly linear in its gradients, however small they are.
  training.options.dense_optimizer = {.learning_rate = 0.01f, .eps = 1, .weight_decay = 0};
  SequenceModelOptions& model = training.options.model;
  model.dim = 32;
  model.num_heads = 1;
  model.feed_forward_dim = 32;
  const Outcome before = train_unsharded(training, 0), expected = train_unsharded(training, kSteps);
  model.precision = Precision::kBf16;
  const Outcome one = train(training, kSteps, {kTableWise, kTableWise, 1, device});
  const Outcome two = train(training, kSteps, {kRowWise, kDataParallel, 2, device});
  const double bound = bf16_bound(model.num_blocks);
  // What a step made of the loss of the next batch: the slope is off by that, and the way, too. The
  // third batch is empty.
  SmallTraining still = training;
  still.options.sparse_optimizer.learning_rate = still.options.dense_optimizer.learning_rate = 0;
  const Outcome still_one = train(still, 2, {kTableWise, kTableWise, 1, device});
  still.options.model.precision = Precision::kFp32;
  const double change = expected.losses[1] - train_unsharded(still, 2).losses[1];
  EXPECT_NEAR(one.losses[1] - still_one.losses[1], change, 2 * bound * std::abs(change));
  EXPECT_NEAR(one.losses[0], expected.losses[0], bound * expected.losses[0]);
  for (int step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(two.losses[step], one.losses[step], 0.1 * bound * one.losses[step]) << step;
  }
  for (const char* name : {"item.weights", "country.weights", "dense"}) {
    const std::vector<double> right = movement(before, expected, name),
                              of_one = movement(before, one, name),
                              of_two = movement(before, two, name);
    EXPECT_LE(distance(of_one, right), bound * length(right)) << name;
    EXPECT_LE(distance(of_two, right), bound * length(right)) << name;
    // Sums in fp32 that differ by 2^-18 of themselves, in another order, are rounded to another
    // bfloat16, 2 u away, once in 2^9 times: by less than a tenth of u on average.
    EXPECT_LE(distance(of_one, of_two), 0.1 * bound * length(right)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, Bf16TrainStepTest, testing::ValuesIn(test_devices()),
                         device_name);

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
