#include <gtest/gtest.h>

#include <functional>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"

namespace serrate {
namespace {

std::vector<EmbeddingTable> make_tables() {
  return {{.name = "a", .num_rows = 10, .dim = 8, .features = {"x", "y"}},
          {.name = "b", .num_rows = 6, .dim = 12, .features = {"x"}},
          {.name = "c", .num_rows = 5, .dim = 4, .features = {}},
          {.name = "d", .num_rows = 3, .dim = 4, .features = {"z"}}};
}

ShardingPlan make_plan() {
  const auto tables = make_tables();
  return {2,
          {shard_table(tables[0], ShardingType::kRowWise, 2),
           shard_table(tables[1], ShardingType::kColumnWise, 2),
           shard_table(tables[2], ShardingType::kTableWise, 2, 1),
           shard_table(tables[3], ShardingType::kDataParallel, 2)}};
}

TEST(ValidatePlan, AcceptsEveryTypeInAnyOrderOfTables) {
  const auto tables = make_tables();
  ShardingPlan plan = make_plan();
  EXPECT_NO_THROW(validate_plan(plan, tables, 2));
  std::swap(plan.tables[0], plan.tables[3]);
  EXPECT_NO_THROW(validate_plan(plan, tables, 2));
}

// Two nodes of two ranks.
std::string error_of_grid(const TableSharding& sharding, int ranks_per_node) {
  const EmbeddingTable table{.name = "a", .num_rows = 10, .dim = 8, .features = {}};
  try {
    validate_plan({4, {sharding}, ranks_per_node}, std::span(&table, 1), 4);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ValidatePlan, NodesHoldTheirTablesAndColumnBlocks) {
  const TableSharding rows{"a", ShardingType::kTableRowWise, {{0, 5, 0, 8, 2}, {5, 10, 0, 8, 1}}};
  EXPECT_EQ(error_of_grid(rows, 2),
            "sharding plan: tables[0].shards[1].rank: must be a rank of node 1 (got 1) "
            "(table_row_wise table \"a\", 10 x 8)");
  const TableSharding columns{
      "a", ShardingType::kTableColumnWise, {{0, 10, 0, 4, 1}, {0, 10, 4, 8, 2}}};
  EXPECT_EQ(error_of_grid(columns, 2),
            "sharding plan: tables[0].shards[1].rank: must be a rank of node 0 (got 2) "
            "(table_column_wise table \"a\", 10 x 8)");
  TableSharding grid{"a",
                     ShardingType::kGrid,
                     {{0, 7, 0, 4, 3}, {0, 7, 4, 8, 0}, {7, 10, 0, 4, 2}, {7, 10, 4, 8, 0}}};
  EXPECT_EQ(error_of_grid(grid, 2), "");
  EXPECT_EQ(error_of_grid(grid, 0),
            "sharding plan: ranks_per_node: is missing (grid table \"a\" needs nodes)");
  EXPECT_EQ(error_of_grid(grid, 3),
            "sharding plan: ranks_per_node: must divide the 4 ranks (got 3)");
  grid.shards[2].rank = 1;
  EXPECT_EQ(error_of_grid(grid, 2),
            "sharding plan: tables[0].shards[2].rank: must be a rank of node 1 (got 1) "
            "(grid table \"a\", 10 x 8)");
}

struct BadPlan {
  const char* message;
  std::function<void(ShardingPlan&, std::vector<EmbeddingTable>&)> damage;
};

class BadPlans : public testing::TestWithParam<BadPlan> {};

TEST_P(BadPlans, ErrorNamesTheField) {
  auto tables = make_tables();
  ShardingPlan plan = make_plan();
  GetParam().damage(plan, tables);
  try {
    validate_plan(plan, tables, 2);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find(GetParam().message), std::string::npos)
        << error.what();
  }
}

using Plan = ShardingPlan;
using Tables = std::vector<EmbeddingTable>;

INSTANTIATE_TEST_SUITE_P(
    Plans, BadPlans,
    testing::Values(
        BadPlan{"embedding table \"a\": init_scale: must be at most 65504 in fp16 (got 70000)",
                [](Plan&, Tables& tables) {
                  tables[0].data_type = DataType::kFloat16;
                  tables[0].init_scale = 70000;
                }},
        BadPlan{"init_scale: must be at most 3.3895314e+38 in bf16 (got 3.4e+38)",
                [](Plan&, Tables& tables) {
                  tables[0].data_type = DataType::kBFloat16;
                  tables[0].init_scale = 3.4e38f;
                }},
        BadPlan{"init_scale: must be at most 3.4028235e+38 in fp32 (got nan)",
                [](Plan&, Tables& tables) { tables[0].init_scale = std::nanf(""); }},
        BadPlan{"world_size: is 3, but there are 2 ranks",
                [](Plan& p, Tables&) { p.world_size = 3; }},
        BadPlan{"tables: \"d\" is missing", [](Plan& p, Tables&) { p.tables.pop_back(); }},
        BadPlan{"tables[4].table: \"a\" is in the plan twice",
                [](Plan& p, Tables&) { p.tables.push_back(p.tables[0]); }},
        BadPlan{"tables[1].table: \"q\" is not a table of the model",
                [](Plan& p, Tables&) { p.tables[1].table = "q"; }},
        BadPlan{"tables[2].shards: must be one (got 0)",
                [](Plan& p, Tables&) { p.tables[2].shards.clear(); }},
        BadPlan{"tables[2].shards: must be one (got 2)",
                [](Plan& p, Tables&) { p.tables[2].shards.push_back(p.tables[2].shards[0]); }},
        BadPlan{"tables[2].shards[0].rank: must be between 0 and 1 (got 2)",
                [](Plan& p, Tables&) { p.tables[2].shards[0].rank = 2; }},
        BadPlan{"tables[2].shards[0].rank: must be between 0 and 1 (got -1)",
                [](Plan& p, Tables&) { p.tables[2].shards[0].rank = -1; }},
        BadPlan{"tables[2].shards[0].rows: must be all rows",
                [](Plan& p, Tables&) { p.tables[2].shards[0].row_end = 4; }},
        BadPlan{"tables[2].shards[0].columns: must be all columns",
                [](Plan& p, Tables&) { p.tables[2].shards[0].column_begin = 1; }},
        BadPlan{"tables[2].shards[0].rows: [0, 6] is not within [0, 5]",
                [](Plan& p, Tables&) { p.tables[2].shards[0].row_end = 6; }},
        BadPlan{"tables[2].shards[0].columns: [-1, 4] is not within [0, 4]",
                [](Plan& p, Tables&) { p.tables[2].shards[0].column_begin = -1; }},
        BadPlan{"tables[0].shards[1].rows: [10, 10] is empty",
                [](Plan& p, Tables&) { p.tables[0].shards[1].row_begin = 10; }},
        BadPlan{"tables[0].shards[1].rows: must begin at 5 (got 6)",
                [](Plan& p, Tables&) { p.tables[0].shards[1].row_begin = 6; }},
        BadPlan{"tables[0].shards[1].rows: must begin at 5 (got 4)",
                [](Plan& p, Tables&) { p.tables[0].shards[1].row_begin = 4; }},
        BadPlan{"tables[0].shards: must reach 10 rows (they end at 9)",
                [](Plan& p, Tables&) { p.tables[0].shards[1].row_end = 9; }},
        BadPlan{"tables[0].shards[0].rows: must begin at 0 (got 5)",
                [](Plan& p, Tables&) { std::swap(p.tables[0].shards[0], p.tables[0].shards[1]); }},
        BadPlan{"tables[0].shards: must reach 10 rows (they end at 0)",
                [](Plan& p, Tables&) { p.tables[0].shards.clear(); }},
        BadPlan{"tables[0].shards[0].columns: must be all columns",
                [](Plan& p, Tables&) { p.tables[0].shards[0].column_end = 4; }},
        BadPlan{"tables[1].shards[1].columns: must begin at 4 (got 8)",
                [](Plan& p, Tables&) { p.tables[1].shards[1].column_begin = 8; }},
        BadPlan{"tables[1].shards: must reach 12 columns (they end at 8)",
                [](Plan& p, Tables&) { p.tables[1].shards[1].column_end = 8; }},
        BadPlan{"tables[1].shards[0].rows: must be all rows",
                [](Plan& p, Tables&) { p.tables[1].shards[0].row_begin = 1; }},
        BadPlan{"tables[3].shards: must be one for each rank (got 1)",
                [](Plan& p, Tables&) { p.tables[3].shards.pop_back(); }},
        BadPlan{"tables[3].shards[1].rank: must be 1 (got 0)",
                [](Plan& p, Tables&) { p.tables[3].shards[1].rank = 0; }},
        BadPlan{"tables[3].shards[1].rows: must be all rows",
                [](Plan& p, Tables&) { p.tables[3].shards[1].row_begin = 1; }},
        BadPlan{"(row_wise table \"a\", 12 x 8)", [](Plan&, Tables& ts) { ts[0].num_rows = 12; }},
        BadPlan{"(row_wise table \"a\", 10 x 16)", [](Plan&, Tables& ts) { ts[0].dim = 16; }},
        BadPlan{"embedding table \"a\": dim: must be at least 1 (got 0)",
                [](Plan&, Tables& ts) { ts[0].dim = 0; }},
        BadPlan{"embedding table \"b\": num_rows: must be at least 1 (got -4)",
                [](Plan&, Tables& ts) { ts[1].num_rows = -4; }},
        BadPlan{"embedding table \"a\": name: another table has this name",
                [](Plan&, Tables& ts) { ts[1].name = "a"; }},
        BadPlan{"embedding table \"a\": features: one of them appears twice",
                [](Plan&, Tables& ts) { ts[0].features[1] = "x"; }}));

}  // namespace
}  // namespace serrate
