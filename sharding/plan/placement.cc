#include "sharding/plan/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "serrate/error.h"
#include "sharding/planner/problem.h"

namespace serrate {

std::vector<int> ranks_of(const PlannerTable& table, const PlannerTopology& topology,
                          const PlacedTable& placed, int block) {
  std::vector<int> ranks;
  switch (placed.type) {
    case ShardingType::kTableWise:
    case ShardingType::kColumnWise:
    case ShardingType::kTableColumnWise:
      return {placed.blocks[block]};
    case ShardingType::kTableRowWise:
    case ShardingType::kGrid:
      for (int i = 0; i < topology.ranks_per_node; ++i) {
        ranks.push_back(placed.blocks[block] * topology.ranks_per_node + i);
      }
      return ranks;
    case ShardingType::kRowWise:
      ranks = confined_ranks(table);
      if (!ranks.empty()) return ranks;
      [[fallthrough]];
    case ShardingType::kDataParallel:
      ranks.resize(topology.world_size);
      std::iota(ranks.begin(), ranks.end(), 0);
  }
  return ranks;
}

namespace {

int row_ranks_of(const PlannerTable& table, const PlannerTopology& topology) {
  const auto ranks = confined_ranks(table);
  return ranks.empty() ? topology.world_size : static_cast<int>(ranks.size());
}

void check_placed(const PlannerTable& table, const PlacedTable& placed,
                  const ShardingOption& option, const PlannerTopology& topology) {
  const auto fail = [&](const std::string& problem) {
    throw usage_error(fmt::format("placement of table \"{}\" ({}): {}", table.name,
                                  to_string(placed.type), problem));
  };
  const bool everywhere =
      placed.type == ShardingType::kDataParallel || placed.type == ShardingType::kRowWise;
  const int blocks = everywhere ? 0 : option.num_column_blocks;
  if (std::ssize(placed.blocks) != blocks) {
    fail(fmt::format("must have {} blocks (got {})", blocks, placed.blocks.size()));
  }
  const bool by_node =
      placed.type == ShardingType::kTableRowWise || placed.type == ShardingType::kGrid;
  const int places = by_node ? topology.num_nodes() : topology.world_size;
  for (const int place : placed.blocks) {
    if (place < 0 || place >= places)
      fail(fmt::format("there is no {} {}", by_node ? "node" : "rank", place));
  }
  const auto allowed = confined_ranks(table);
  if (allowed.empty()) return;
  for (int block = 0; block < std::max(1, blocks); ++block) {
    for (const int rank : ranks_of(table, topology, placed, block)) {
      if (!std::binary_search(allowed.begin(), allowed.end(), rank)) {
        fail(fmt::format("may not be on rank {}", rank));
      }
    }
  }
}

}  // namespace

ShardingOption placed_option(const PlannerTable& table, const PlannerTopology& topology,
                             const PlacedTable& placed) {
  const ShardingOption option =
      sharding_option(table, placed.type, placed.kernel, topology, row_ranks_of(table, topology));
  check_placed(table, placed, option, topology);
  return option;
}

ShardingPlan to_sharding_plan(const PlannerModel& model, const PlannerTopology& topology,
                              std::span<const PlacedTable> tables) {
  ShardingPlan plan{.world_size = topology.world_size};
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const PlannerTable& table = model.tables[t];
    const PlacedTable& placed = tables[t];
    const ShardingOption option = placed_option(table, topology, placed);
    if (needs_nodes(placed.type)) plan.ranks_per_node = topology.ranks_per_node;
    TableSharding sharding{.table = table.name, .type = placed.type, .kernel = placed.kernel};
    std::vector<std::vector<int>> ranks;  // [num_column_blocks][num_row_blocks]
    for (int block = 0; block < option.num_column_blocks; ++block) {
      ranks.push_back(ranks_of(table, topology, placed, block));
    }
    if (placed.type == ShardingType::kDataParallel) {
      for (const int rank : ranks.front()) {
        sharding.shards.push_back(
            {.row_end = table.num_rows, .column_end = table.dim, .rank = rank});
      }
      ranks.clear();
    }
    for (int row = 0; !ranks.empty() && row * option.rows < table.num_rows; ++row) {
      for (int block = 0; block < option.num_column_blocks; ++block) {
        sharding.shards.push_back({.row_begin = row * option.rows,
                                   .row_end = std::min((row + 1) * option.rows, table.num_rows),
                                   .column_begin = block * option.columns,
                                   .column_end = (block + 1) * option.columns,
                                   .rank = ranks[block][row]});
      }
    }
    plan.tables.push_back(std::move(sharding));
  }
  return plan;
}

}  // namespace serrate
