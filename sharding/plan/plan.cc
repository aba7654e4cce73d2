#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"
#include "sharding/plan/shard_grid.h"

namespace serrate {
namespace {

constexpr std::array<std::pair<ShardingType, const char*>, 7> kTypeNames{{
    {ShardingType::kDataParallel, "data_parallel"},
    {ShardingType::kTableWise, "table_wise"},
    {ShardingType::kRowWise, "row_wise"},
    {ShardingType::kColumnWise, "column_wise"},
    {ShardingType::kTableRowWise, "table_row_wise"},
    {ShardingType::kTableColumnWise, "table_column_wise"},
    {ShardingType::kGrid, "grid"},
}};

// Columns are dealt out in units that fill a 128-bit SIMD register, so that rows stay aligned.
constexpr std::int64_t kColumnUnit = 4;

// Blocks of ceil(rows / row_blocks) rows, each cut into column_blocks runs of whole column units
// (fewer when dim is small); block (i, j) is on rank_of(i, j).
template <typename RankOf>
std::vector<Shard> cut(const EmbeddingTable& table, int row_blocks, int column_blocks,
                       RankOf rank_of) {
  std::vector<Shard> shards;
  const std::int64_t rows = divide_up(table.num_rows, row_blocks);
  const std::int64_t units = divide_up(table.dim, kColumnUnit);
  const std::int64_t blocks = std::min<std::int64_t>(column_blocks, units);
  for (std::int64_t i = 0; i * rows < table.num_rows; ++i) {
    for (std::int64_t j = 0; j < blocks; ++j) {
      shards.push_back({.row_begin = i * rows,
                        .row_end = std::min((i + 1) * rows, table.num_rows),
                        .column_begin = units * j / blocks * kColumnUnit,
                        .column_end = std::min(units * (j + 1) / blocks * kColumnUnit, table.dim),
                        .rank = static_cast<int>(rank_of(i, j))});
    }
  }
  return shards;
}

}  // namespace

std::string to_string(ShardingType type) {
  return std::find_if(kTypeNames.begin(), kTypeNames.end(),
                      [&](const auto& entry) { return entry.first == type; })
      ->second;
}

ShardingType sharding_type_from_string(const std::string& name) {
  for (const auto& [type, type_name] : kTypeNames) {
    if (name == type_name) return type;
  }
  throw usage_error(fmt::format(
      "\"{}\" is not a sharding type (data_parallel, table_wise, row_wise, column_wise, "
      "table_row_wise, table_column_wise or grid)",
      name));
}

bool needs_nodes(ShardingType type) {
  return type == ShardingType::kTableRowWise || type == ShardingType::kTableColumnWise ||
         type == ShardingType::kGrid;
}

const TableSharding& sharding_of(const ShardingPlan& plan, std::string_view table) {
  const auto found = std::find_if(plan.tables.begin(), plan.tables.end(),
                                  [&](const TableSharding& t) { return t.table == table; });
  if (found == plan.tables.end()) {
    throw usage_error(fmt::format("sharding plan: there is no table \"{}\"", table));
  }
  return *found;
}

TableSharding shard_table(const EmbeddingTable& table, ShardingType type, int world_size,
                          int first_rank, int ranks_per_node) {
  check(world_size >= 1, "a plan needs at least one rank");
  check(first_rank >= 0 && first_rank < world_size, "first_rank has to be in [0, world_size)");
  if (needs_nodes(type) && (ranks_per_node < 1 || world_size % ranks_per_node != 0)) {
    throw usage_error(
        fmt::format("table \"{}\" cannot be {}: ranks_per_node must divide the {} "
                    "ranks (got {})",
                    table.name, to_string(type), world_size, ranks_per_node));
  }
  const int in_node = std::max(ranks_per_node, 1), num_nodes = world_size / in_node;
  const auto any_rank = [&](std::int64_t i) { return (first_rank + i) % world_size; };
  const auto rank_in_node = [&](std::int64_t node, std::int64_t i) {
    return node * in_node + (first_rank + i) % in_node;
  };
  const int node = first_rank / in_node;
  TableSharding sharding{table.name, type, {}};
  switch (type) {
    case ShardingType::kDataParallel:
      for (int rank = 0; rank < world_size; ++rank) {
        sharding.shards.push_back(
            {.row_end = table.num_rows, .column_end = table.dim, .rank = rank});
      }
      break;
    case ShardingType::kTableWise:
      sharding.shards = cut(table, 1, 1, [&](auto, auto) { return first_rank; });
      break;
    case ShardingType::kRowWise:
      sharding.shards = cut(table, world_size, 1, [&](auto i, auto) { return any_rank(i); });
      break;
    case ShardingType::kColumnWise:
      sharding.shards = cut(table, 1, world_size, [&](auto, auto j) { return any_rank(j); });
      break;
    case ShardingType::kTableRowWise:
      sharding.shards = cut(table, in_node, 1, [&](auto i, auto) { return rank_in_node(node, i); });
      break;
    case ShardingType::kTableColumnWise:
      sharding.shards = cut(table, 1, in_node, [&](auto, auto j) { return rank_in_node(node, j); });
      break;
    case ShardingType::kGrid:
      sharding.shards = cut(table, in_node, num_nodes, [&](auto i, auto j) {
        return rank_in_node((node + j) % num_nodes, i);
      });
      break;
  }
  return sharding;
}

ShardingPlan default_plan(std::span<const EmbeddingTable> tables, int world_size) {
  constexpr std::int64_t kReplicatedRows = 4096;
  ShardingPlan plan{.world_size = world_size, .tables = {}};
  for (const EmbeddingTable& table : tables) {
    const auto type =
        table.num_rows < kReplicatedRows ? ShardingType::kDataParallel : ShardingType::kRowWise;
    plan.tables.push_back(shard_table(table, type, world_size));
  }
  return plan;
}

}  // namespace serrate
