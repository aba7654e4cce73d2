// What is said of tables that do not fit.
#include <gmock/gmock.h>

#include "serrate/planner.h"

namespace serrate {
namespace {

using testing::HasSubstr;

// Tables of 64,000 and 128,000 bytes of weights, whole on one of two ranks of 100,000 bytes. A step
// adds 528 bytes: two ids of 8 bytes, two rows of 256.
struct Problem {
  PlannerModel model;
  PlannerTopology topology;

  Problem() {
    model.batch_size = 1;
    for (const std::int64_t rows : {250, 500}) {
      model.tables.push_back({.name = std::string(1, rows == 250 ? 'a' : 'b'),
                              .num_rows = rows,
                              .dim = 64,
                              .features = {{}},
                              .sharding_types = {ShardingType::kTableWise}});
    }
    topology.world_size = topology.ranks_per_node = 2;
    topology.device_bytes = {100'000, 100'000};
    topology.host_bytes = {0, 0};
  }

  PlannerResult plan() const { return plan_sharding(model, topology, {}); }
};

TEST(PlannerInfeasible, NamesTheTableThatFitsNoRank) {
  const PlannerResult result = Problem().plan();
  EXPECT_TRUE(result.proved_infeasible);
  EXPECT_THAT(result.infeasible, HasSubstr("table \"b\" does not fit"));
  EXPECT_THAT(result.infeasible, HasSubstr("no rank has more than 97.66 KiB for tables"));
  EXPECT_THAT(result.infeasible, HasSubstr("(give a rank 125.5 KiB for tables"));
}

TEST(PlannerInfeasible, NamesTheGroupThatFitsNoRank) {
  Problem p;
  p.model.tables[1].num_rows = 250;
  for (PlannerTable& table : p.model.tables) table.group = "both";
  const PlannerResult result = p.plan();
  EXPECT_TRUE(result.proved_infeasible);
  EXPECT_THAT(result.infeasible, HasSubstr("group \"both\" (tables \"a\", \"b\") does not fit"));
}

TEST(PlannerInfeasible, NamesTheRankThatTablesArePinnedTo) {
  Problem p;
  p.model.tables[1].num_rows = 250;
  EXPECT_TRUE(p.plan().feasible());
  for (PlannerTable& table : p.model.tables) table.ranks = {1};
  const PlannerResult result = p.plan();
  EXPECT_TRUE(result.proved_infeasible);
  EXPECT_THAT(result.infeasible, HasSubstr("device memory on rank 1, which has 97.66 KiB"));
}

}  // namespace
}  // namespace serrate
