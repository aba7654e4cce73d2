#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/support/run_ranks.h"
#include "tests/train/training_fixture.h"

namespace serrate {

/// How a small training is distributed.
struct Distribution {
  ShardingType items, countries;  // on nodes of two ranks where that goes
  int world_size = 1;
  Device device = Device::cpu();
  int threads = 1;
};

/// What a training comes to.
struct Outcome {
  std::vector<double> losses;
  Tensors tensors;
};

inline Outcome train(const SmallTraining& training, int num_steps, const Distribution& how) {
  const auto tables = training.tables();
  const int world_size = how.world_size;
  const int in_node = world_size % 2 == 0 ? 2 : 1;
  const ShardingPlan plan{
      .world_size = world_size,
      .tables = {shard_table(tables[0], how.items, world_size, world_size - 1, in_node),
                 shard_table(tables[1], how.countries, world_size, 0, in_node)},
      .ranks_per_node = in_node};
  Outcome outcome;
  run_ranks(world_size, [&](Communicator& communicator) {
    const Stream stream(how.device, how.threads);
    TrainState state(tables, plan, training.options, communicator, stream);
    for (int step = 1; step <= num_steps; ++step) {
      const NextItemBatch batch = training.batch(step, communicator.rank(), world_size, stream);
      const double loss = train_step(state, batch, step).loss;
      if (communicator.rank() == 0) outcome.losses.push_back(loss);
    }
    collect(state, outcome.tensors);
  });
  return outcome;
}

/// On the CPU.
inline Outcome train_unsharded(const SmallTraining& training, int num_steps) {
  return train(training, num_steps, {ShardingType::kTableWise, ShardingType::kTableWise});
}

inline void expect_close(const Outcome& expected, const Outcome& actual) {
  ASSERT_EQ(actual.losses.size(), expected.losses.size());
  for (std::size_t step = 0; step < expected.losses.size(); ++step) {
    EXPECT_NEAR(actual.losses[step], expected.losses[step], 1e-5 * expected.losses[0]) << step;
  }
  for (const auto& [name, values] : expected.tensors) {
    const auto found = actual.tensors.find(name);
    ASSERT_NE(found, actual.tensors.end()) << name;
    ASSERT_EQ(found->second.size(), values.size()) << name;
    float largest = 0, difference = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      largest = std::max(largest, std::abs(values[i]));
      difference = std::max(difference, std::abs(values[i] - found->second[i]));
    }
    EXPECT_GT(largest, 0) << name;
    EXPECT_LE(difference, 1e-5f * largest) << name;
  }
}

}  // namespace serrate
