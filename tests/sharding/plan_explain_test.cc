#include <gtest/gtest.h>

#include <algorithm>

#include "serrate/error.h"
#include "serrate/planner_report.h"

namespace serrate {
namespace {

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

PlannerModel one_table() {
  return {.tables = {{.name = "a",
                      .num_rows = 1'000'003,
                      .dim = 256,
                      .features = {{.pooling_factor = 7}}}},
          .batch_size = 128};
}

PlannerTopology two_nodes() {
  return {.world_size = 4,
          .ranks_per_node = 2,
          .device_bytes = std::vector<std::int64_t>(4, 4 * kGiB),
          .host_bytes = std::vector<std::int64_t>(4, 4 * kGiB)};
}

const OptionReport& option(const TableExplanation& e, ShardingType type,
                           ComputeKernel kernel = ComputeKernel::kFused) {
  return *std::find_if(e.options.begin(), e.options.end(),
                       [&](const OptionReport& o) { return o.type == type && o.kernel == kernel; });
}

TableExplanation explain(const PlannerModel& model, const PlannerTopology& topology,
                         const PlannerOptions& options, const std::string& table) {
  const PlannerResult result = plan_sharding(model, topology, options);
  EXPECT_TRUE(result.feasible()) << result.infeasible;
  const ShardingPlan plan = to_sharding_plan(model, topology, options, result);
  return explain_table(model, topology, plan, report_plan(model, topology, plan, options), table);
}

// Alone in a model, a table that is told its type costs what the planner finds for that type.
TEST(PlanExplain, AgreesWithPlanningEachType) {
  for (const auto estimator : {PlannerEstimator::kTorchRec, PlannerEstimator::kSerrate}) {
    for (const auto objective : {PlannerObjective::kMaxRank, PlannerObjective::kCriticalPath}) {
      const PlannerOptions options{.estimator = estimator, .objective = objective};
      const TableExplanation e = explain(one_table(), two_nodes(), options, "a");
      ASSERT_EQ(e.options.size(), 1u + 6 * 3);
      int chosen = 0;
      for (const OptionReport& o : e.options) {
        ASSERT_TRUE(o.possible);
        chosen += o.chosen;
        PlannerModel forced = with_sharding_type(one_table(), "a", o.type);
        forced.tables[0].kernels = {o.kernel};
        const PlannerResult result = plan_sharding(forced, two_nodes(), options);
        ASSERT_TRUE(result.feasible());
        EXPECT_NEAR(o.objective_ms, result.objective(objective), 1e-9 * o.objective_ms)
            << to_string(o.type) << " " << to_string(o.kernel);
        const bool is_allowed = o.why.rfind("not allowed", 0) != 0;
        EXPECT_TRUE(!is_allowed || o.objective_ms >= e.objective_ms * (1 - 1e-12)) << o.why;
        EXPECT_EQ(o.why.find("missed"), std::string::npos) << o.why;
      }
      EXPECT_EQ(chosen, 1);
    }
  }
}

TEST(PlanExplain, SaysWhatIsNotAllowedNotPossibleAndTooLarge) {
  PlannerModel model = one_table();
  model.tables.push_back(model.tables[0]);
  model.tables[1].name = "b";
  model.tables[0].sharding_types = {ShardingType::kRowWise, ShardingType::kTableWise};
  model.tables[0].ranks = {1, 2, 3};
  PlannerTopology topology = two_nodes();
  topology.device_bytes.assign(4, kGiB * 9 / 10);  // less than a table, more than a third of one
  const TableExplanation e = explain(model, topology, {}, "a");
  EXPECT_EQ(option(e, ShardingType::kRowWise).why, "chosen");
  EXPECT_EQ(option(e, ShardingType::kRowWise).num_shards, 3);
  EXPECT_EQ(option(e, ShardingType::kDataParallel, ComputeKernel::kDense).why,
            "constraints.ranks names ranks");
  EXPECT_FALSE(option(e, ShardingType::kDataParallel, ComputeKernel::kDense).possible);
  EXPECT_EQ(option(e, ShardingType::kTableWise).why.rfind("does not fit: no rank has ", 0), 0u);
  EXPECT_EQ(option(e, ShardingType::kRowWise, ComputeKernel::kFusedUvm)
                .why.rfind("not allowed: constraints.kernels does not name fused_uvm (+", 0),
            0u);
  EXPECT_EQ(
      option(e, ShardingType::kTableRowWise)
          .why.rfind("not allowed: constraints.sharding_types allows row_wise, table_wise", 0),
      0u)
      << option(e, ShardingType::kTableRowWise).why;
  EXPECT_NE(to_text(e).find("row_wise            fused                    3"), std::string::npos)
      << to_text(e);
  EXPECT_THROW(explain(model, topology, {}, "c"), Error);
}

TEST(PlanExplain, MovesAGroupTogether) {
  PlannerModel model = one_table();
  model.tables.push_back(model.tables[0]);
  model.tables[1].name = "b";
  model.tables[0].group = model.tables[1].group = "g";
  const TableExplanation e = explain(model, two_nodes(), {}, "b");
  EXPECT_EQ(e.group, std::vector<std::string>{"a"});
  const OptionReport& row_wise = option(e, ShardingType::kRowWise);
  const PlannerResult forced =
      plan_sharding(with_sharding_type(model, "a", ShardingType::kRowWise), two_nodes(), {});
  EXPECT_NEAR(row_wise.objective_ms, forced.cost.max_rank, 1e-9 * row_wise.objective_ms);
}

TEST(PlanCompare, ListsFiguresAndTables) {
  const PlannerModel model = one_table();
  const PlannerTopology topology = two_nodes();
  const auto report = [&](ShardingType type) {
    const PlannerModel forced = with_sharding_type(model, type);
    const PlannerResult result = plan_sharding(forced, topology, {});
    return report_plan(model, topology, to_sharding_plan(forced, topology, result.tables), {});
  };
  const PlanReport a = report(ShardingType::kTableWise), b = report(ShardingType::kRowWise);
  const std::string text = compare_text({"mine", a}, {"theirs", b});
  EXPECT_NE(text.find("mine"), std::string::npos);
  EXPECT_NE(text.find("1 of 1 table elsewhere"), std::string::npos) << text;
  EXPECT_NE(text.find("table_wise rank "), std::string::npos) << text;
  EXPECT_NE(text.find("row_wise 4 ranks fused"), std::string::npos) << text;
  EXPECT_NE(compare_text({"a", a}, {"a", a}).find("0 of 1 table elsewhere\n"), std::string::npos);
}

TEST(WhatIf, ChangesWhatItNames) {
  PlannerModel model = one_table();
  PlannerTopology t = two_nodes();
  for (const char* change :
       {"hbm=40GiB", "ddr=1TiB", "ranks=8", "ranks_per_node=4", "batch_size=32", "reserve=0.5",
        "inter_bandwidth=25GB/s", "intra_latency=3us", "link_bandwidth=1GB/s"}) {
    apply_what_if(change, model, t);
  }
  EXPECT_EQ(t.device_bytes, std::vector<std::int64_t>(8, 40 * kGiB));
  EXPECT_EQ(t.host_bytes, std::vector<std::int64_t>(8, 1024 * kGiB));
  EXPECT_EQ(t.world_size, 8);
  EXPECT_EQ(t.ranks_per_node, 4);
  EXPECT_EQ(model.batch_size, 32);
  EXPECT_EQ(t.reserve, 0.5);
  EXPECT_EQ(t.inter_node_bandwidth, 25e6);
  EXPECT_EQ(t.intra_node_latency, 3e-3);
  EXPECT_EQ(t.host_link_bandwidth, 1e6);
}

TEST(WhatIf, RefusesWhatMakesNoSense) {
  const auto error_of = [](const std::string& change) {
    PlannerModel model = one_table();
    PlannerTopology t = two_nodes();
    t.device_bytes[1] = kGiB;
    try {
      apply_what_if(change, model, t);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(error_of("hbm=40Gib"),
            "what if hbm=40Gib: \"40Gib\" is not an amount of memory (such as 80GiB or 512MB)");
  EXPECT_EQ(error_of("ranks=0"), "what if ranks=0: \"0\" is not a whole number from 1 to 1048576");
  EXPECT_EQ(error_of("ranks=8").rfind("what if ranks=8: ranks do not have the same memory", 0), 0u);
  EXPECT_EQ(error_of("reserve=1"),
            "what if reserve=1: \"1\" is not a share, from 0 to less than 1");
  EXPECT_EQ(error_of("vram=1GiB").rfind("what if vram=1GiB: there is no \"vram\" to change", 0),
            0u);
  EXPECT_EQ(error_of("hbm").rfind("what if hbm: \"\" is not an amount", 0), 0u);
}

}  // namespace
}  // namespace serrate
