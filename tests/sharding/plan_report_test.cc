#include "serrate/planner_report.h"

#include <gtest/gtest.h>

#include <numeric>

#include "serrate/error.h"
#include "src/core/json.h"

namespace serrate {
namespace {

// Eight ranks on two nodes; a table for each type, one with fewer rows than ranks.
PlannerModel small_model() {
  PlannerModel model{.batch_size = 64};
  const auto add = [&](const char* name, std::int64_t rows, std::int64_t dim, ShardingType type) {
    model.tables.push_back({.name = name,
                            .num_rows = rows,
                            .dim = dim,
                            .features = {{.pooling_factor = 3}},
                            .optimizer = SparseOptimizer::kRowWiseAdagrad,
                            .sharding_types = {type},
                            .min_columns = 16});
  };
  add("data_parallel", 100, 32, ShardingType::kDataParallel);
  add("table_wise", 10'000, 64, ShardingType::kTableWise);
  add("row_wise", 10'001, 64, ShardingType::kRowWise);
  add("few_rows", 5, 64, ShardingType::kRowWise);
  add("column_wise", 5'000, 96, ShardingType::kColumnWise);
  add("table_row_wise", 9, 64, ShardingType::kTableRowWise);
  add("table_column_wise", 4'000, 64, ShardingType::kTableColumnWise);
  add("grid", 1'001, 64, ShardingType::kGrid);
  return model;
}

PlannerTopology small_topology() {
  return {.world_size = 8,
          .ranks_per_node = 4,
          .device_bytes = std::vector<std::int64_t>(8, 100'000'000),
          .host_bytes = std::vector<std::int64_t>(8, 1'000'000'000),
          .intra_node_latency = 0.001,
          .inter_node_latency = 0.01};
}

class Reports : public testing::TestWithParam<std::pair<PlannerEstimator, PlannerObjective>> {};

// The report adds up a plan's shards, cost_of a placement's: they have to agree.
TEST_P(Reports, AgreeWithTheCostOfThePlacement) {
  const PlannerModel model = small_model();
  const PlannerTopology topology = small_topology();
  const PlannerOptions options{.estimator = GetParam().first, .objective = GetParam().second};
  const PlannerResult result = plan_sharding(model, topology, options);
  ASSERT_TRUE(result.feasible()) << result.infeasible;
  const ShardingPlan plan = to_sharding_plan(model, topology, options, result);
  const PlanReport report = report_plan(model, topology, plan, options);
  EXPECT_NEAR(report.cost.max_rank, result.cost.max_rank, 1e-12 * result.cost.max_rank);
  EXPECT_NEAR(report.cost.critical_path, result.cost.critical_path,
              1e-12 * result.cost.critical_path);
  EXPECT_EQ(report.cost.device_bytes, result.cost.device_bytes);
  EXPECT_EQ(report.cost.host_bytes, result.cost.host_bytes);
  EXPECT_EQ(report.bound_ms, result.bound);

  double phases = 0, ranks = 0, tables = 0;
  for (const PhaseReport& phase : report.phases) phases += phase.slowest_ms();
  EXPECT_NEAR(phases, report.cost.critical_path, 1e-12 * phases);
  EXPECT_EQ(*std::max_element(report.rank_ms.begin(), report.rank_ms.end()), report.cost.max_rank);
  for (const double ms : report.rank_ms) ranks += ms;
  for (const TableReport& table : report.tables) tables += table.work_ms;
  // What ranks wait for messages is no table's.
  for (const PhaseReport& phase : report.phases) {
    if (phase.name == "waiting for messages") ranks -= 8 * phase.slowest_ms();
  }
  EXPECT_NEAR(tables, ranks, 1e-9 * ranks);
  EXPECT_TRUE(plan_violations(model, topology, plan, options).empty());
}

INSTANTIATE_TEST_SUITE_P(
    EstimatorsAndObjectives, Reports,
    testing::Values(std::pair(PlannerEstimator::kTorchRec, PlannerObjective::kMaxRank),
                    std::pair(PlannerEstimator::kTorchRec, PlannerObjective::kCriticalPath),
                    std::pair(PlannerEstimator::kSerrate, PlannerObjective::kMaxRank),
                    std::pair(PlannerEstimator::kSerrate, PlannerObjective::kCriticalPath)));

// Two ranks, one table_wise table; the numbers of TorchRec's model by hand: 64 bags of 3 ids from
// each of 2 ranks, 256 columns of 4 bytes, 1000 bytes a ms from memory and between ranks.
TEST(PlanReport, ByHand) {
  const PlannerModel model{
      .tables = {{.name = "a", .num_rows = 10, .dim = 256, .features = {{.pooling_factor = 3}}}},
      .batch_size = 64};
  const PlannerTopology topology{.world_size = 2,
                                 .ranks_per_node = 2,
                                 .device_bytes = {1 << 20, 1 << 20},
                                 .host_bytes = {0, 0},
                                 .device_bandwidth = 1000,
                                 .intra_node_bandwidth = 1000};
  const ShardingPlan plan{
      .world_size = 2,
      .tables = {{"a", ShardingType::kTableWise, {{.row_end = 10, .column_end = 256, .rank = 1}}}}};
  const PlanReport report = report_plan(model, topology, plan, {});
  const double ids = 2 * 64 * 3, bags = 2 * 64;
  const double forward = (ids * 8 + ids * 1024 + bags * 1024) / 1000;
  const double exchange = bags * 1024 / 1000;
  EXPECT_NEAR(report.rank_ms[1], 3 * forward + 2 * exchange, 1e-9);
  EXPECT_EQ(report.rank_ms[0], 0);
  EXPECT_EQ(report.imbalance(), 2);
  ASSERT_EQ(report.phases.size(), 4u);
  EXPECT_EQ(report.phases[0].name, "forward compute");
  EXPECT_EQ(report.phases[0].slowest_rank, 1);
  EXPECT_NEAR(report.phases[1].slowest_ms(), 2 * forward, 1e-9);
  EXPECT_EQ(report.phases[2].name, "table_wise forward exchange");
  EXPECT_EQ(report.tables[0].ranks, std::vector{1});
  // The table, the ids and the bags.
  EXPECT_EQ(report.tables[0].device_bytes, 10 * 1024 + 384 * 8 + 128 * 1024);
  EXPECT_EQ(report.shards[1][static_cast<int>(ShardingType::kTableWise)], 1);
}

struct PlanProblem {
  const char* problem;
  void (*change)(PlannerModel&, PlannerTopology&, ShardingPlan&);
};

class PlanProblems : public testing::TestWithParam<PlanProblem> {};

TEST_P(PlanProblems, AreNamed) {
  PlannerModel model{.tables = {{.name = "a", .num_rows = 10, .dim = 256, .features = {{}}},
                                {.name = "b", .num_rows = 10, .dim = 256, .features = {{}}}},
                     .batch_size = 1};
  PlannerTopology topology{.world_size = 2,
                           .ranks_per_node = 2,
                           .device_bytes = {1 << 20, 1 << 20},
                           .host_bytes = {0, 0}};
  ShardingPlan plan{
      .world_size = 2,
      .tables = {{"a", ShardingType::kTableWise, {{.row_end = 10, .column_end = 256, .rank = 0}}},
                 {"b",
                  ShardingType::kColumnWise,
                  {{.row_end = 10, .column_end = 128, .rank = 0},
                   {.row_end = 10, .column_begin = 128, .column_end = 256, .rank = 1}}}}};
  ASSERT_TRUE(plan_violations(model, topology, plan, {}).empty());
  GetParam().change(model, topology, plan);
  const auto problems = plan_violations(model, topology, plan, {});
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_NE(problems[0].find(GetParam().problem), std::string::npos) << problems[0];
}

INSTANTIATE_TEST_SUITE_P(
    Each, PlanProblems,
    testing::Values(
        PlanProblem{"tables[0].shards[0].rows: must be all rows",
                    [](PlannerModel&, PlannerTopology&, ShardingPlan& plan) {
                      plan.tables[0].shards[0].row_end = 9;
                    }},
        PlanProblem{"rank 0: needs ", [](PlannerModel&, PlannerTopology& topology,
                                         ShardingPlan&) { topology.device_bytes[0] = 10'000; }},
        PlanProblem{"table \"a\" (table_wise): its constraints allow row_wise, grid",
                    [](PlannerModel& model, PlannerTopology&, ShardingPlan&) {
                      model.tables[0].sharding_types = {ShardingType::kRowWise,
                                                        ShardingType::kGrid};
                    }},
        PlanProblem{"its kernel is fused, its constraints allow fused_uvm",
                    [](PlannerModel& model, PlannerTopology&, ShardingPlan&) {
                      model.tables[0].kernels = {ComputeKernel::kFusedUvm};
                    }},
        PlanProblem{"table \"b\" (column_wise): has a shard on rank 0, its constraints allow 1",
                    [](PlannerModel& model, PlannerTopology&, ShardingPlan&) {
                      model.tables[1].ranks = {1};
                    }},
        PlanProblem{"has a shard of 128 columns, min_columns is 192",
                    [](PlannerModel& model, PlannerTopology&, ShardingPlan&) {
                      model.tables[1].min_columns = 192;
                    }},
        PlanProblem{"table \"b\": is not where \"a\" is, of the same group \"g\"",
                    [](PlannerModel& model, PlannerTopology&, ShardingPlan&) {
                      model.tables[0].group = model.tables[1].group = "g";
                    }},
        PlanProblem{"cannot have the kernel dense (dense is data_parallel's)",
                    [](PlannerModel&, PlannerTopology&, ShardingPlan& plan) {
                      plan.tables[0].kernel = ComputeKernel::kDense;
                    }},
        PlanProblem{
            "ranks_per_node: is 1, but nodes have 2 ranks",
            [](PlannerModel&, PlannerTopology&, ShardingPlan& plan) { plan.ranks_per_node = 1; }},
        PlanProblem{"world_size: is 2, but there are 4 ranks",
                    [](PlannerModel&, PlannerTopology& topology, ShardingPlan&) {
                      topology.world_size = 4;
                      topology.device_bytes.resize(4, 1 << 20);
                      topology.host_bytes.resize(4);
                    }}));

// A plan that the planner would not make has a cost, too.
TEST(PlanReport, OfUnevenCuts) {
  const PlannerModel model{.tables = {{.name = "a", .num_rows = 10, .dim = 64, .features = {{}}}},
                           .batch_size = 1};
  const PlannerTopology topology{.world_size = 3,
                                 .ranks_per_node = 3,
                                 .device_bytes = {100'000, 100'000, 100'000},
                                 .host_bytes = {0, 0, 0}};
  const ShardingPlan plan{.world_size = 3,
                          .tables = {{"a",
                                      ShardingType::kRowWise,
                                      {{.row_end = 7, .column_end = 64, .rank = 2},
                                       {.row_begin = 7, .row_end = 10, .column_end = 64}}}}};
  const PlanReport report = report_plan(model, topology, plan, {});
  EXPECT_GT(report.rank_ms[2], 0);
  EXPECT_GT(report.rank_ms[0], 0);
  EXPECT_EQ(report.rank_ms[1], 0);
  EXPECT_EQ(report.tables[0].ranks, (std::vector{0, 2}));
}

// The page holds what --json has, whatever names tables have, and loads nothing.
TEST(PlanPage, HoldsTheReport) {
  PlannerModel model = small_model();
  model.tables[1].name = "</script><b>&\"'";
  const PlannerResult result = plan_sharding(model, small_topology(), {});
  const ShardingPlan plan = to_sharding_plan(model, small_topology(), {}, result);
  const PlanReport report = report_plan(model, small_topology(), plan, {});
  const TableExplanation explanation =
      explain_table(model, small_topology(), plan, report, model.tables[1].name);
  const std::string page = to_html(report, {&explanation, 1});
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  EXPECT_EQ(page.find("src="), std::string::npos);
  EXPECT_EQ(page.find("<link"), std::string::npos);
  EXPECT_EQ(page.find("@import"), std::string::npos);
  EXPECT_EQ(page.find("@DATA@"), std::string::npos);

  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const auto begin = page.find(open) + open.size();
  const auto data = parse_json(page.substr(begin, page.find("</script>", begin) - begin), "report");
  EXPECT_EQ(data["max_rank_ms"], report.cost.max_rank);
  EXPECT_EQ(data["bound_ms"], result.bound);
  EXPECT_EQ(data["ranks"].size(), 8u);
  EXPECT_EQ(data["tables"][1]["name"], model.tables[1].name);
  EXPECT_EQ(data["explanations"][model.tables[1].name]["options"][0]["why"], "chosen");
}

}  // namespace
}  // namespace serrate
