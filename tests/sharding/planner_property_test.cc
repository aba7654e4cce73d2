// What holds for every plan.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <utility>

#include "serrate/sharding_plan.h"
#include "sharding/planner/bound.h"
#include "sharding/planner/misfits.h"
#include "sharding/planner/search.h"
#include "tests/sharding/random_instance.h"

namespace serrate {
namespace {

std::vector<EmbeddingTable> embedding_tables(const PlannerModel& model) {
  std::vector<EmbeddingTable> tables;
  for (const PlannerTable& t : model.tables) {
    tables.push_back({.name = t.name, .num_rows = t.num_rows, .dim = t.dim});
  }
  return tables;
}

void expect_constraints(const PlannerTable& table, const PlacedTable& placed,
                        const TableSharding& sharding) {
  if (table.sharding_types.empty()) {
    EXPECT_NE(placed.type, ShardingType::kGrid);
  } else {
    EXPECT_TRUE(std::ranges::count(table.sharding_types, placed.type)) << to_string(placed.type);
  }
  if (table.kernels.empty()) {
    EXPECT_LE(placed.kernel, ComputeKernel::kFused);
  } else {
    EXPECT_TRUE(std::ranges::count(table.kernels, placed.kernel)) << to_string(placed.kernel);
  }
  for (const Shard& shard : sharding.shards) {
    EXPECT_GE(shard.num_columns(), std::min(table.min_columns, table.dim));
    if (!table.ranks.empty()) {
      EXPECT_TRUE(std::ranges::count(table.ranks, shard.rank)) << "rank " << shard.rank;
    }
  }
}

// What a rank allocates, and the next batch's ids; but for kernels that cache rows.
void expect_memory_of_training(const PlannerModel& model, const ShardingPlan& plan,
                               const PlanCost& cost) {
  const auto caches = [](const TableSharding& sharding) {
    return sharding.kernel == ComputeKernel::kFusedUvmCaching;
  };
  if (std::ranges::any_of(plan.tables, caches)) return;
  const auto predicted = predict_memory(model, plan);
  for (int r = 0; r < plan.world_size; ++r) {
    EXPECT_NEAR(cost.device_bytes[r] + cost.host_bytes[r],
                predicted[r].total() + predicted[r].ahead, 1);
  }
}

void expect_plan_holds(const PlannerInstance& instance, const PlannerOptions& options,
                       const PlannerResult& result) {
  const PlannerModel& model = instance.model;
  const ShardingPlan plan = to_sharding_plan(model, instance.topology, result.tables);
  EXPECT_NO_THROW(validate_plan(plan, embedding_tables(model), instance.topology.world_size));
  const PlacedTable* of_group = nullptr;
  for (std::size_t t = 0; t < model.tables.size(); ++t) {
    expect_constraints(model.tables[t], result.tables[t], plan.tables[t]);
    if (model.tables[t].group.empty()) continue;
    if (!of_group) of_group = &result.tables[t];
    EXPECT_EQ(result.tables[t], *of_group) << "the tables of the group are apart";
  }
  for (int r = 0; r < instance.topology.world_size; ++r) {
    EXPECT_LE(result.cost.device_bytes[r], instance.topology.device_bytes[r]) << "rank " << r;
    EXPECT_LE(result.cost.host_bytes[r], instance.topology.host_bytes[r]) << "rank " << r;
  }
  const PlanCost cost = cost_of(model, instance.topology, result.tables, options.estimator);
  EXPECT_EQ(cost.max_rank, result.cost.max_rank);
  EXPECT_EQ(cost.critical_path, result.cost.critical_path);
  if (options.estimator == PlannerEstimator::kSerrate) expect_memory_of_training(model, plan, cost);
}

TEST(PlannerProperties, HoldForEveryPlan) {
  constexpr int kInstances = random_problems(1'500);
  RandomInstances instances(2);
  int planned = 0;
  for (int i = 0; i < kInstances && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    const PlannerInstance instance = instances.next(i % 100 == 0 ? 30 : 5, 3, 3);
    const PlannerOptions options{.estimator = instances.any_estimator(),
                                 .objective = instances.any_objective()};
    const PlannerResult result = plan_sharding(instance.model, instance.topology, options);
    if (result.feasible()) {
      ++planned;
      expect_plan_holds(instance, options, result);
    }
    if (i % 10 == 0) {
      const PlannerResult again = plan_sharding(instance.model, instance.topology, options);
      EXPECT_EQ(result.tables, again.tables);
      EXPECT_EQ(result.infeasible, again.infeasible);
      EXPECT_EQ(result.bound, again.bound);
      if (result.feasible()) {
        EXPECT_EQ(plan_to_json(to_sharding_plan(instance.model, instance.topology, result.tables)),
                  plan_to_json(to_sharding_plan(instance.model, instance.topology, again.tables)));
      }
    }
  }
  EXPECT_GE(planned, kInstances / 3);
}

// Enough tables on enough nodes for all moves of the search, some of them confined to whole nodes.
TEST(PlannerProperties, HoldForTablesThatAreConfinedToNodes) {
  constexpr int kNodes = 4, kRanksPerNode = 4, kRanks = kNodes * kRanksPerNode;
  std::mt19937 generator(5);
  const auto below = [&](int n) { return static_cast<int>(generator() % n); };
  for (int i = 0; i < 6; ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    PlannerInstance instance;
    instance.model.batch_size = 512;
    instance.topology.world_size = kRanks;
    instance.topology.ranks_per_node = kRanksPerNode;
    instance.topology.device_bytes.assign(kRanks, std::int64_t{80} << 30);
    instance.topology.host_bytes.assign(kRanks, std::int64_t{256} << 30);
    for (int t = 0; t < 24; ++t) {
      PlannerTable table{.name = "t" + std::to_string(t),
                         .num_rows = std::int64_t{10'000} << below(10),
                         .dim = 32 << below(3),
                         .features = {{.pooling_factor = 1.0 + below(100)}}};
      if (t < 5) {
        const int first = below(kNodes), second = (first + 1 + below(kNodes - 1)) % kNodes;
        for (int r = 0; r < kRanks; ++r) {
          const int node = r / kRanksPerNode;
          if (node == first || node == second) table.ranks.push_back(r);
        }
        table.sharding_types = {ShardingType::kTableRowWise, ShardingType::kGrid};
        if (t % 2 == 0) table.sharding_types.pop_back();
      }
      instance.model.tables.push_back(std::move(table));
    }
    for (const auto objective : {PlannerObjective::kMaxRank, PlannerObjective::kCriticalPath}) {
      const PlannerOptions options{.objective = objective};
      const PlannerResult result = plan_sharding(instance.model, instance.topology, options);
      ASSERT_TRUE(result.feasible()) << result.infeasible;
      expect_plan_holds(instance, options, result);
    }
  }
}

// Nor, from the placement that it is given, does a search come to a longer one.
TEST(PlannerProperties, SearchesKeepWhatTheyBeginWith) {
  RandomInstances instances(4);
  int begun = 0;
  for (int i = 0; i < 80; ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    const PlannerInstance instance = instances.next(30, 3, 3);
    PlannerOptions options{.estimator = instances.any_estimator(),
                           .objective = instances.any_objective()};
    PlannerProblem problem = planner_problem(instance.model, instance.topology, options.estimator);
    if (drop_misfits(problem)) continue;
    const PlannerBound bound = planner_bound(problem, options.objective);
    const SearchResult first = search_placement(problem, bound, options, {}, SearchEffort::kPlenty);
    if (!first.within_memory || first.is_best) continue;
    ++begun;
    const std::vector<std::vector<ItemPlacement>> starts{first.items};
    for (const SearchEffort effort : {SearchEffort::kScarce, SearchEffort::kRefine}) {
      const SearchResult again = search_placement(problem, bound, options, starts, effort);
      EXPECT_TRUE(again.within_memory);
      EXPECT_LE(again.objective, first.objective * (1 + 1e-9));
    }
  }
  EXPECT_GE(begun, 10);
}

// Cut short, it still has a plan, or says that it has none.
TEST(PlannerProperties, HoldForPlansThatWereCutShort) {
  RandomInstances instances(3);
  constexpr int kInstances = random_problems(80);
  int planned = 0;
  for (int i = 0; i < kInstances; ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    const PlannerInstance instance = instances.next(100, 4, 8);
    const PlannerOptions options{.estimator = instances.any_estimator(),
                                 .objective = instances.any_objective(),
                                 .time_limit = std::chrono::milliseconds(i % 2)};
    const PlannerResult result = plan_sharding(instance.model, instance.topology, options);
    if (!result.feasible()) continue;
    ++planned;
    expect_plan_holds(instance, options, result);
  }
  EXPECT_GE(planned, kInstances / 4);
}

}  // namespace
}  // namespace serrate
