#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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

inline ShardingPlan unsharded_plan(const Workload& workload) {
  return uniform_plan(workload, ShardingType::kTableWise, 1);
}

}  // namespace serrate
