// The key property at the level of the embedding: k steps on W ranks, under any plan, equal k
// unsharded steps.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/embedding/workload.h"

namespace serrate {
namespace {

constexpr double kTolerance = 1e-5;  // of each tensor's largest magnitude

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

Tensors<float> train(const Workload& workload, const ShardingPlan& plan, int num_threads = 1) {
  return assemble(workload, train_thread_ranks(workload, plan, num_threads));
}

ShardingPlan unsharded_plan(const Workload& workload) {
  return uniform_plan(workload, ShardingType::kTableWise, 1);
}

struct Case {
  const char* plan;
  SparseOptimizer optimizer;
  int world_size;
};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return fmt::format("{}_{}_{}ranks", info.param.plan, to_string(info.param.optimizer),
                     info.param.world_size);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const char* plan : {"table_wise", "row_wise", "column_wise", "data_parallel", "mixed"}) {
    for (const auto optimizer : {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                 SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
      for (int world_size = 1; world_size <= 4; ++world_size) {
        cases.push_back({plan, optimizer, world_size});
      }
    }
  }
  return cases;
}

ShardingPlan make_plan(const Workload& workload, const Case& c) {
  const std::string name = c.plan;
  if (name == "mixed") return mixed_plan(workload, c.world_size);
  return uniform_plan(workload, sharding_type_from_string(name), c.world_size);
}

Workload make_workload(SparseOptimizer optimizer) {
  Workload workload{.tables = workload_tables(), .optimizer = {.type = optimizer}};
  workload.optimizer.learning_rate = 0.1f;
  return workload;
}

class Equivalence : public testing::TestWithParam<Case> {};

TEST_P(Equivalence, StepsEqualUnshardedSteps) {
  const Workload workload = make_workload(GetParam().optimizer);
  const auto unsharded = train(workload, unsharded_plan(workload));
  const auto sharded = train(workload, make_plan(workload, GetParam()));
  expect_close(sharded, unsharded);

  // Where every bag is pooled in one place, nothing depends on the plan but the sums of squares
  // over a row that row-wise Adagrad adds up from column blocks.
  const std::string plan = GetParam().plan;
  const bool bit_identical =
      plan == "table_wise" || plan == "data_parallel" ||
      (plan == "column_wise" && GetParam().optimizer != SparseOptimizer::kRowWiseAdagrad) ||
      (plan != "mixed" && GetParam().world_size == 1);
  if (bit_identical) {
    EXPECT_EQ(sharded, unsharded) << "bit for bit";
  }
}

TEST_P(Equivalence, BagsOfOneIdAreBitIdenticalUnlessColumnsAreCut) {
  Workload workload = make_workload(GetParam().optimizer);
  workload.longest_bag = 1;
  if (GetParam().plan == std::string("mixed") || GetParam().plan == std::string("column_wise")) {
    return;
  }
  EXPECT_EQ(train(workload, make_plan(workload, GetParam())),
            train(workload, unsharded_plan(workload)));
}

INSTANTIATE_TEST_SUITE_P(Plans, Equivalence, testing::ValuesIn(all_cases()), case_name);

class Reference : public testing::TestWithParam<SparseOptimizer> {};

TEST_P(Reference, UnshardedStepsEqualTheDefinitionsInDoublePrecision) {
  const Workload workload = make_workload(GetParam());
  const ShardingPlan plan = unsharded_plan(workload);
  Workload no_steps = workload;
  no_steps.num_steps = 0;
  expect_close(train(workload, plan), train_reference(workload, train(no_steps, plan)));
}

TEST_P(Reference, ThreadsDoNotChangeABit) {
  const Workload workload = make_workload(GetParam());
  const ShardingPlan plan = mixed_plan(workload, 3);
  EXPECT_EQ(train(workload, plan, 3), train(workload, plan, 1));
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Reference,
                         testing::Values(SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                         SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam),
                         [](const auto& p) { return to_string(p.param); });

}  // namespace
}  // namespace serrate
