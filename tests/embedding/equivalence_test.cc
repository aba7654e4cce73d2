// The key property at the level of the embedding: k steps on W ranks, under any plan, equal k
// unsharded steps.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "sharding/plan/shard_grid.h"
#include "tests/embedding/equivalence.h"

namespace serrate {
namespace {

Tensors<float> train(const Workload& workload, const ShardingPlan& plan, int num_threads = 1) {
  return assemble(workload, train_thread_ranks(workload, plan, num_threads));
}

struct Case {
  const char* plan;
  SparseOptimizer optimizer;
  int world_size;
  int ranks_per_node;
};

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  const std::string nodes =
      c.ranks_per_node > 0 ? fmt::format("_{}nodes", c.world_size / c.ranks_per_node) : "";
  return fmt::format("{}_{}_{}ranks{}", c.plan, to_string(c.optimizer), c.world_size, nodes);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto optimizer : {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                               SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
    for (const char* plan :
         {"table_wise", "row_wise", "odd_ranks", "column_wise", "data_parallel", "mixed"}) {
      for (int world_size = 1; world_size <= 4; ++world_size) {
        cases.push_back({plan, optimizer, world_size, 0});
      }
    }
    for (const char* plan : {"table_row_wise", "table_column_wise", "grid", "mixed_nodes"}) {
      for (const auto& [num_nodes, ranks_per_node] :
           {std::pair{1, 1}, {1, 2}, {2, 1}, {2, 2}, {3, 2}, {2, 3}, {4, 2}}) {
        cases.push_back({plan, optimizer, num_nodes * ranks_per_node, ranks_per_node});
      }
    }
  }
  return cases;
}

ShardingPlan make_plan(const Workload& workload, const Case& c) {
  const std::string name = c.plan;
  if (name == "mixed") return mixed_plan(workload, c.world_size);
  if (name == "odd_ranks") return odd_rank_plan(workload, c.world_size);
  if (name == "mixed_nodes") return mixed_node_plan(workload, c.world_size, c.ranks_per_node);
  return uniform_plan(workload, sharding_type_from_string(name), c.world_size, c.ranks_per_node);
}

/// Also of zeros.
void expect_same_bits(const Tensors<float>& actual, const Tensors<float>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (const auto& [name, values] : expected) {
    const std::vector<float>& found = actual.at(name);
    ASSERT_EQ(found.size(), values.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(values[i]))
          << name << " " << i << ": " << found[i] << " instead of " << values[i];
    }
  }
}

// Whether the ids of some bag are pooled in several places.
bool cuts_rows(const ShardingPlan& plan) {
  return std::ranges::any_of(plan.tables, [](const TableSharding& table) {
    return shard_grid(table).num_row_blocks() > 1;
  });
}

class Equivalence : public testing::TestWithParam<Case> {};

// Where every bag is pooled in one place, nothing depends on the plan.
TEST_P(Equivalence, StepsEqualUnshardedSteps) {
  const Workload workload = make_workload(GetParam().optimizer);
  const ShardingPlan plan = make_plan(workload, GetParam());
  const auto unsharded = train(workload, unsharded_plan(workload));
  const auto sharded = train(workload, plan);
  expect_close(sharded, unsharded);
  if (!cuts_rows(plan)) expect_same_bits(sharded, unsharded);
}

TEST_P(Equivalence, BagsOfOneIdAreBitIdentical) {
  Workload workload = make_workload(GetParam().optimizer);
  workload.longest_bag = 1;
  expect_same_bits(train(workload, make_plan(workload, GetParam())),
                   train(workload, unsharded_plan(workload)));
}

// Weighted bags and means too, on ranks with uneven parts of the batch and two threads.
TEST_P(Equivalence, BagsPooledInTheOrderOfTheirIdsAreBitIdentical) {
  Workload workload = make_workload(GetParam().optimizer);
  const auto unsharded = train(workload, unsharded_plan(workload));
  workload.split_bags = SplitBags::kIdOrder;
  expect_same_bits(train(workload, make_plan(workload, GetParam()), 2), unsharded);
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
  for (const ShardingPlan& plan : {mixed_plan(workload, 3), mixed_node_plan(workload, 4, 2)}) {
    EXPECT_EQ(train(workload, plan, 3), train(workload, plan, 1));
  }
}

TEST_P(Reference, TablesOf16BitsAreThoseOfFloat32ButForRoundings) {
  const Workload workload = rounded_workload(GetParam()), exact = in_float32(workload);
  const ShardingPlan plan = unsharded_plan(workload);
  const auto train_exact = [&](const Workload& w) { return train(w, plan); };
  expect_within_roundings(workload, train(workload, plan), train_exact(exact),
                          largest_weights(exact, train_exact));
}

// The random numbers go by row and column of the table. Feedback carries a bit that differs on.
TEST_P(Reference, TablesOf16BitsAreTheSameBitsUnderEveryPlan) {
  Workload workload = rounded_workload(GetParam());
  workload.feedback = 0.25;
  const auto unsharded = train(workload, unsharded_plan(workload));
  for (const char* plan : {"table_wise", "row_wise", "column_wise", "data_parallel", "mixed"}) {
    expect_same_bits(train(workload, make_plan(workload, {plan, GetParam(), 3, 0})), unsharded);
  }
  for (const char* plan : {"table_row_wise", "table_column_wise", "grid", "mixed_nodes"}) {
    expect_same_bits(train(workload, make_plan(workload, {plan, GetParam(), 4, 2}), 2), unsharded);
  }
}

// A plan that says all ranks are one node has the same shards, and exchanges with their owners
// directly. A mean is scaled part by part then, after the parts are added up otherwise.
TEST_P(Reference, SumsThatGoThroughNodesAreTheSameBits) {
  Workload workload = make_workload(GetParam());
  for (EmbeddingTable& table : workload.tables) table.pooling = PoolingType::kSum;
  for (const auto& [num_nodes, ranks_per_node] : {std::pair{2, 2}, {2, 3}, {3, 2}}) {
    const int world_size = num_nodes * ranks_per_node;
    for (ShardingPlan plan :
         {uniform_plan(workload, ShardingType::kTableRowWise, world_size, ranks_per_node),
          uniform_plan(workload, ShardingType::kGrid, world_size, ranks_per_node),
          mixed_node_plan(workload, world_size, ranks_per_node)}) {
      const auto through_nodes = train(workload, plan);
      plan.ranks_per_node = world_size;
      EXPECT_EQ(through_nodes, train(workload, plan)) << world_size;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Optimizers, Reference,
                         testing::Values(SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                         SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam),
                         [](const auto& p) { return to_string(p.param); });

}  // namespace
}  // namespace serrate
