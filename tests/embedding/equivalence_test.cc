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

ShardingPlan plan_of(const Workload& workload, ShardingType type, int world_size) {
  ShardingPlan plan{.world_size = world_size};
  int rank = 0;
  for (const EmbeddingTable& table : workload.tables) {
    plan.tables.push_back(shard_table(table, type, world_size, rank++ % world_size));
  }
  return plan;
}

ShardingPlan unsharded_plan(const Workload& workload) {
  return plan_of(workload, ShardingType::kTableWise, 1);
}

// Each type at once, and shards that shard_table would not make: uneven blocks, in another order
// of ranks, several on one rank, columns cut in odd places.
ShardingPlan mixed_plan(const Workload& workload, int world_size) {
  const auto& tables = workload.tables;
  const auto rank = [&](int r) { return r % world_size; };
  return {world_size,
          {{tables[0].name,
            ShardingType::kRowWise,
            {{0, 3, 0, 20, rank(2)},
             {3, 30, 0, 20, rank(0)},
             {30, 31, 0, 20, rank(2)},
             {31, 37, 0, 20, rank(1)}}},
           shard_table(tables[1], ShardingType::kTableWise, world_size, rank(1)),
           shard_table(tables[2], ShardingType::kDataParallel, world_size),
           {tables[3].name,
            ShardingType::kColumnWise,
            {{0, 64, 0, 5, rank(1)}, {0, 64, 5, 6, rank(3)}, {0, 64, 6, 12, rank(1)}}}}};
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
  return plan_of(workload, sharding_type_from_string(name), c.world_size);
}

Workload make_workload(SparseOptimizer optimizer) {
  Workload workload{.tables = workload_tables(), .optimizer = {.type = optimizer}};
  workload.optimizer.learning_rate = 0.1f;
  return workload;
}

class Equivalence : public testing::TestWithParam<Case> {};

TEST_P(Equivalence, StepsEqualUnshardedSteps) {
  const Workload workload = make_workload(GetParam().optimizer);
  const auto unsharded = train_sharded(workload, unsharded_plan(workload));
  const auto sharded = train_sharded(workload, make_plan(workload, GetParam()));
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
  EXPECT_EQ(train_sharded(workload, make_plan(workload, GetParam())),
            train_sharded(workload, unsharded_plan(workload)));
}

INSTANTIATE_TEST_SUITE_P(Plans, Equivalence, testing::ValuesIn(all_cases()), case_name);

class Reference : public testing::TestWithParam<SparseOptimizer> {};

TEST_P(Reference, UnshardedStepsEqualTheDefinitionsInDoublePrecision) {
  const Workload workload = make_workload(GetParam());
  const ShardingPlan plan = unsharded_plan(workload);
  expect_close(train_sharded(workload, plan),
               train_reference(workload, initial_tables(workload, plan)));
}

TEST_P(Reference, ThreadsDoNotChangeABit) {
  const Workload workload = make_workload(GetParam());
  const ShardingPlan plan = mixed_plan(workload, 3);
  EXPECT_EQ(train_sharded(workload, plan, 3), train_sharded(workload, plan, 1));
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Reference,
                         testing::Values(SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                         SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam),
                         [](const auto& p) { return to_string(p.param); });

}  // namespace
}  // namespace serrate
