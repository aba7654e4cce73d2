#include <gtest/gtest.h>

#include <random>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"
#include "sharding/plan/shard_grid.h"

namespace serrate {
namespace {

constexpr ShardingType kTypes[] = {
    ShardingType::kDataParallel, ShardingType::kTableWise,    ShardingType::kRowWise,
    ShardingType::kColumnWise,   ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
    ShardingType::kGrid,
};

EmbeddingTable make_table(std::int64_t rows, std::int64_t dim) {
  return {.name = "items", .num_rows = rows, .dim = dim, .features = {"item"}};
}

TEST(ShardTable, RowWiseLeavesOutRanksWithoutRows) {
  // ceil(10 / 4) = 3 rows a block; ceil(5 / 4) = 2, so that the fourth rank has none.
  const auto ten = shard_table(make_table(10, 8), ShardingType::kRowWise, 4);
  EXPECT_EQ(ten.shards, (std::vector<Shard>{
                            {0, 3, 0, 8, 0}, {3, 6, 0, 8, 1}, {6, 9, 0, 8, 2}, {9, 10, 0, 8, 3}}));
  const auto five = shard_table(make_table(5, 8), ShardingType::kRowWise, 4, 2);
  EXPECT_EQ(five.shards, (std::vector<Shard>{{0, 2, 0, 8, 2}, {2, 4, 0, 8, 3}, {4, 5, 0, 8, 0}}));
}

TEST(ShardTable, ColumnWiseCutsAtMultiplesOfFour) {
  const auto wide = shard_table(make_table(7, 64), ShardingType::kColumnWise, 3);
  EXPECT_EQ(wide.shards,
            (std::vector<Shard>{{0, 7, 0, 20, 0}, {0, 7, 20, 40, 1}, {0, 7, 40, 64, 2}}));
  const auto narrow = shard_table(make_table(7, 6), ShardingType::kColumnWise, 4);
  EXPECT_EQ(narrow.shards, (std::vector<Shard>{{0, 7, 0, 4, 0}, {0, 7, 4, 6, 1}}));
}

TEST(ShardTable, TableWiseAndDataParallel) {
  EXPECT_EQ(shard_table(make_table(7, 6), ShardingType::kTableWise, 3, 1).shards,
            (std::vector<Shard>{{0, 7, 0, 6, 1}}));
  EXPECT_EQ(shard_table(make_table(7, 6), ShardingType::kDataParallel, 2).shards,
            (std::vector<Shard>{{0, 7, 0, 6, 0}, {0, 7, 0, 6, 1}}));
}

TEST(ShardTable, TypesOfNodesStayOnTheNodeOfTheFirstRank) {
  // Nodes {0, 1, 2} and {3, 4, 5}; rank 4 is the second of node 1.
  EXPECT_EQ(shard_table(make_table(7, 8), ShardingType::kTableRowWise, 6, 4, 3).shards,
            (std::vector<Shard>{{0, 3, 0, 8, 4}, {3, 6, 0, 8, 5}, {6, 7, 0, 8, 3}}));
  EXPECT_EQ(shard_table(make_table(7, 8), ShardingType::kTableColumnWise, 6, 4, 3).shards,
            (std::vector<Shard>{{0, 7, 0, 4, 4}, {0, 7, 4, 8, 5}}));
  EXPECT_EQ(shard_table(make_table(7, 12), ShardingType::kGrid, 6, 3, 3).shards,
            (std::vector<Shard>{{0, 3, 0, 4, 3},
                                {0, 3, 4, 12, 0},
                                {3, 6, 0, 4, 4},
                                {3, 6, 4, 12, 1},
                                {6, 7, 0, 4, 5},
                                {6, 7, 4, 12, 2}}));
}

TEST(ShardTable, TypesOfNodesNeedNodesOfOneSize) {
  for (const int ranks_per_node : {0, 4}) {
    try {
      shard_table(make_table(7, 8), ShardingType::kGrid, 6, 0, ranks_per_node);
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what())
                    .find("table \"items\" cannot be grid: ranks_per_node must "
                          "divide the 6 ranks (got "),
                0u)
          << error.what();
    }
  }
}

TEST(DefaultPlan, ReplicatesSmallTables) {
  const std::vector<EmbeddingTable> tables{make_table(4095, 4), make_table(4096, 4)};
  const ShardingPlan plan = default_plan(tables, 2);
  EXPECT_EQ(plan.tables[0].type, ShardingType::kDataParallel);
  EXPECT_EQ(plan.tables[1].type, ShardingType::kRowWise);
}

TEST(ShardingTypeNames, RoundTrip) {
  for (const ShardingType type : kTypes) {
    EXPECT_EQ(sharding_type_from_string(to_string(type)), type);
  }
  EXPECT_THROW(sharding_type_from_string("RowWise"), Error);
}

TEST(ShardGridTest, FindsTheCutsOfRowAndColumnBlocks) {
  const TableSharding sharding{
      "items",
      ShardingType::kRowWise,
      {{0, 3, 0, 4, 0}, {0, 3, 4, 8, 1}, {3, 5, 0, 4, 2}, {3, 5, 4, 8, 3}}};
  const ShardGrid grid = shard_grid(sharding);
  EXPECT_EQ(grid.row_splits, (std::vector<std::int64_t>{0, 3, 5}));
  EXPECT_EQ(grid.column_splits, (std::vector<std::int64_t>{0, 4, 8}));
  const auto replicated = shard_grid(shard_table(make_table(7, 6), ShardingType::kDataParallel, 3));
  EXPECT_EQ(replicated.row_splits, (std::vector<std::int64_t>{0, 7}));
  EXPECT_EQ(replicated.column_splits, (std::vector<std::int64_t>{0, 6}));
}

// Every plan that shard_table makes holds each cell of its table as often as its type says.
TEST(ShardTable, RandomTablesAreCoveredExactly) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 500; ++trial) {
    const EmbeddingTable table = make_table(1 + random() % 40, 1 + random() % 40);
    const int ranks_per_node = 1 + static_cast<int>(random() % 4);
    const int world_size = ranks_per_node * (1 + static_cast<int>(random() % 4));
    const ShardingType type = kTypes[random() % std::size(kTypes)];
    const TableSharding sharding = shard_table(
        table, type, world_size, static_cast<int>(random() % world_size), ranks_per_node);
    std::vector<int> copies(table.num_rows * table.dim, 0);
    for (const Shard& s : sharding.shards) {
      for (std::int64_t r = s.row_begin; r < s.row_end; ++r) {
        for (std::int64_t c = s.column_begin; c < s.column_end; ++c) ++copies[r * table.dim + c];
      }
    }
    const int expected = type == ShardingType::kDataParallel ? world_size : 1;
    for (const int count : copies) ASSERT_EQ(count, expected) << to_string(type);
    if (type != ShardingType::kDataParallel) {
      const ShardGrid grid = shard_grid(sharding);
      ASSERT_EQ(grid.num_row_blocks() * grid.num_column_blocks(), std::ssize(sharding.shards));
    }
    EXPECT_NO_THROW(
        validate_plan({world_size, {sharding}, ranks_per_node}, std::span(&table, 1), world_size));
  }
}

}  // namespace
}  // namespace serrate
