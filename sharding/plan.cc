#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"

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

std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

std::vector<Shard> row_blocks(const EmbeddingTable& table, int world_size, int first_rank) {
  std::vector<Shard> shards;
  const std::int64_t block = divide_up(table.num_rows, world_size);
  int rank = first_rank;
  for (std::int64_t begin = 0; begin < table.num_rows; begin += block) {
    shards.push_back({.row_begin = begin,
                      .row_end = std::min(begin + block, table.num_rows),
                      .column_end = table.dim,
                      .rank = rank++ % world_size});
  }
  return shards;
}

std::vector<Shard> column_blocks(const EmbeddingTable& table, int world_size, int first_rank) {
  std::vector<Shard> shards;
  const std::int64_t units = divide_up(table.dim, kColumnUnit);
  const std::int64_t blocks = std::min<std::int64_t>(world_size, units);
  for (std::int64_t i = 0; i < blocks; ++i) {
    shards.push_back({.row_end = table.num_rows,
                      .column_begin = units * i / blocks * kColumnUnit,
                      .column_end = std::min(units * (i + 1) / blocks * kColumnUnit, table.dim),
                      .rank = static_cast<int>((first_rank + i) % world_size)});
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

const TableSharding& sharding_of(const ShardingPlan& plan, std::string_view table) {
  const auto found = std::find_if(plan.tables.begin(), plan.tables.end(),
                                  [&](const TableSharding& t) { return t.table == table; });
  if (found == plan.tables.end()) {
    throw usage_error(fmt::format("sharding plan: there is no table \"{}\"", table));
  }
  return *found;
}

TableSharding shard_table(const EmbeddingTable& table, ShardingType type, int world_size,
                          int first_rank) {
  check(world_size >= 1, "a plan needs at least one rank");
  check(first_rank >= 0 && first_rank < world_size, "first_rank has to be in [0, world_size)");
  TableSharding sharding{table.name, type, {}};
  const Shard whole{.row_end = table.num_rows, .column_end = table.dim, .rank = first_rank};
  switch (type) {
    case ShardingType::kTableWise:
      sharding.shards = {whole};
      break;
    case ShardingType::kRowWise:
      sharding.shards = row_blocks(table, world_size, first_rank);
      break;
    case ShardingType::kColumnWise:
      sharding.shards = column_blocks(table, world_size, first_rank);
      break;
    case ShardingType::kDataParallel:
      sharding.shards.assign(world_size, whole);
      for (int rank = 0; rank < world_size; ++rank) sharding.shards[rank].rank = rank;
      break;
    case ShardingType::kTableRowWise:
    case ShardingType::kTableColumnWise:
    case ShardingType::kGrid:
      throw usage_error(fmt::format("table \"{}\" cannot be made {} without nodes (use a plan)",
                                    table.name, to_string(type)));
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
