#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/embedding/workload.h"

namespace serrate {

inline constexpr double kTolerance = 1e-5;  // of each tensor's largest magnitude

template <typename T>
void expect_close(const Tensors<float>& actual, const Tensors<T>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, values] : expected) {
    ASSERT_TRUE(actual.contains(name)) << name;
    const std::vector<float>& found = actual.at(name);
    ASSERT_EQ(found.size(), values.size()) << name;
    double largest = 0, difference = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_TRUE(std::isfinite(found[i])) << name << " " << i;
      largest = std::max(largest, std::abs(static_cast<double>(values[i])));
      difference = std::max(difference, std::abs(static_cast<double>(values[i]) - found[i]));
    }
    EXPECT_LE(difference, kTolerance * largest) << name;
  }
}

inline Workload make_workload(SparseOptimizer optimizer) {
  Workload workload{.tables = workload_tables(), .optimizer = {.type = optimizer}};
  workload.optimizer.learning_rate = 0.1f;
  return workload;
}

/// Tables of 16 bits beside one of float32, and gradients that do not depend on the weights. So
/// what an optimizer adds to a weight is the same whatever the weight is stored in.
inline Workload rounded_workload(SparseOptimizer optimizer) {
  Workload workload = make_workload(optimizer);
  workload.feedback = 0;
  workload.split_bags = SplitBags::kIdOrder;
  workload.tables[0].data_type = DataType::kFloat16;
  workload.tables[1].data_type = DataType::kBFloat16;
  workload.tables[3].data_type = DataType::kBFloat16;
  return workload;
}
inline Workload in_float32(Workload workload) {
  for (EmbeddingTable& table : workload.tables) table.data_type = DataType::kFloat32;
  return workload;
}

/// `rounded` is what steps made of the tables of rounded_workload(), and `exact` what they made of
/// tables of float32, of which no weight was ever larger than `largest`. A rounding moves a weight
/// w by less than u |w|, where u is the spacing of numbers from 1 on, or 2^-24 where that is more;
/// there is one of the first weight and one a step. The state of optimizers is the same bits.
inline void expect_within_roundings(const Workload& workload, const Tensors<float>& rounded,
                                    const Tensors<float>& exact,
                                    const std::map<std::string, double>& largest) {
  for (const EmbeddingTable& table : workload.tables) {
    for (const std::string name : {"state", "second_moment"}) {
      const auto state = exact.find(table.name + " " + name);
      if (state == exact.end()) continue;
      EXPECT_EQ(rounded.at(state->first), state->second) << state->first;
    }
    const std::vector<float>& weights = rounded.at(table.name + " weights");
    const std::vector<float>& expected = exact.at(table.name + " weights");
    const bool is_half = table.data_type == DataType::kFloat16;
    const double u = is_half ? 0x1p-10 : 0x1p-7;
    const double bound = (std::pow(1 + u, workload.num_steps + 1) - 1) *
                         (largest.at(table.name) * (1 + kTolerance) + 0x1p-14);
    const bool is_exact = table.data_type == DataType::kFloat32;
    double difference = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      difference = std::max(difference, std::abs(double{weights[i]} - expected[i]));
      const float stored = is_exact  ? weights[i]
                           : is_half ? float(Float16(weights[i]))
                                     : float(BFloat16(weights[i]));
      EXPECT_EQ(stored, weights[i]) << table.name;
    }
    EXPECT_LE(difference, is_exact ? 0 : bound) << table.name;
    EXPECT_EQ(difference > 0, !is_exact) << table.name;
  }
}

/// The largest weight of each table after any number of steps.
inline std::map<std::string, double> largest_weights(
    Workload workload, const std::function<Tensors<float>(const Workload&)>& train) {
  std::map<std::string, double> largest;
  for (; workload.num_steps >= 0; --workload.num_steps) {
    const Tensors<float> tensors = train(workload);
    for (const EmbeddingTable& table : workload.tables) {
      for (const float w : tensors.at(table.name + " weights")) {
        largest[table.name] = std::max(largest[table.name], std::abs(double{w}));
      }
    }
  }
  return largest;
}

/// This rank of a job of processes ends with the bits that it has if the ranks are threads, under
/// every type of sharding and way to pool.
inline void expect_bits_of_threads(Workload workload, Communicator& communicator, Device device) {
  const int size = communicator.size();
  for (const ShardingPlan& plan : {mixed_plan(workload, size),
                                   mixed_node_plan(workload, size, size % 2 == 0 ? size / 2 : 1)}) {
    for (const SplitBags split_bags : {SplitBags::kPartialSums, SplitBags::kIdOrder}) {
      workload.split_bags = split_bags;
      const RankResult result = train_rank(workload, plan, communicator, Stream(device));
      EXPECT_EQ(result, train_thread_ranks(workload, plan, 1, device)[communicator.rank()])
          << to_string(workload.optimizer.type);
    }
  }
}

inline ShardingPlan unsharded_plan(const Workload& workload) {
  return uniform_plan(workload, ShardingType::kTableWise, 1);
}

}  // namespace serrate
