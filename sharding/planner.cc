#include "serrate/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "serrate/error.h"
#include "sharding/planner_bound.h"
#include "sharding/planner_problem.h"
#include "sharding/planner_search.h"

namespace serrate {
namespace {

// The ranks of column block `block`, in the order of their row blocks.
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

PlanCost cost_of(const PlannerModel& model, const PlannerTopology& topology,
                 std::span<const PlacedTable> tables, PlannerEstimator estimator) {
  const int world_size = topology.world_size;
  PlanCost cost;
  cost.device_bytes.assign(world_size, 0);
  cost.host_bytes.assign(world_size, 0);
  std::vector<double> totals(world_size, 0.0);
  std::vector<PhaseTimes> phases(world_size, PhaseTimes{});
  check(tables.size() == model.tables.size(), "a placement has to be given for each table");
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const PlannerTable& table = model.tables[t];
    const PlacedTable& placed = tables[t];
    const ShardingOption option =
        sharding_option(table, placed.type, placed.kernel, topology, row_ranks_of(table, topology));
    check_placed(table, placed, option, topology);
    for (int block = 0; block < std::max<int>(1, static_cast<int>(placed.blocks.size())); ++block) {
      const std::vector<int> ranks = ranks_of(table, topology, placed, block);
      std::int64_t rows = -1;
      ShardEstimate e;
      for (int i = 0; i < std::ssize(ranks); ++i) {
        const std::int64_t rows_here =
            option.num_row_blocks > 1 ? rows_of(table, option, i) : option.rows;
        if (rows_here != rows) {
          rows = rows_here;
          e = estimate_shard(estimator, table, option, rows, topology, model.batch_size);
        }
        const int rank = ranks[i];
        totals[rank] += e.total(estimator);
        const PhaseTimes times = phase_times(estimator, placed.type, e);
        for (int k = 0; k < kMostPhases; ++k) phases[rank][k] += times[k];
        cost.device_bytes[rank] += e.device_bytes;
        cost.host_bytes[rank] += e.host_bytes;
      }
    }
  }
  cost.max_rank = *std::ranges::max_element(totals);
  for (int k = 0; k < kMostPhases; ++k) {
    double slowest = 0;
    for (const PhaseTimes& times : phases) slowest = std::max(slowest, times[k]);
    cost.critical_path += slowest;
  }
  return cost;
}

PlannerResult plan_sharding(const PlannerModel& model, const PlannerTopology& topology,
                            const PlannerOptions& options) {
  const PlannerProblem problem = planner_problem(model, topology, options.estimator);
  PlannerResult result;
  result.infeasible = prove_infeasible(problem, model);
  if (!result.infeasible.empty()) {
    result.proved_infeasible = true;
    return result;
  }
  const PlannerBound bound = planner_bound(problem);
  result.bound = bound.max_rank;
  const SearchResult found = search_placement(problem, bound, options);
  if (!found.within_memory) {
    result.infeasible =
        "no plan within the memory was found, nor proved impossible (try a longer --time-limit, "
        "more memory per rank, or kernels that keep rows in host memory)";
    return result;
  }
  result.tables.resize(model.tables.size());
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    const Candidate& c = problem.items[i].candidates[found.items[i].candidate];
    for (const int t : problem.items[i].tables) {
      result.tables[t] = {c.type, c.kernel, found.items[i].blocks};
    }
  }
  result.cost = cost_of(model, topology, result.tables, options.estimator);
  return result;
}

ShardingPlan to_sharding_plan(const PlannerModel& model, const PlannerTopology& topology,
                              std::span<const PlacedTable> tables) {
  ShardingPlan plan{.world_size = topology.world_size};
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const PlannerTable& table = model.tables[t];
    const PlacedTable& placed = tables[t];
    const ShardingOption option =
        sharding_option(table, placed.type, placed.kernel, topology, row_ranks_of(table, topology));
    check_placed(table, placed, option, topology);
    const int blocks = std::max<int>(1, static_cast<int>(placed.blocks.size()));
    TableSharding sharding{table.name, placed.type, {}};
    if (needs_nodes(placed.type)) plan.ranks_per_node = topology.ranks_per_node;
    for (int row_block = 0; row_block * option.rows < table.num_rows; ++row_block) {
      for (int block = 0; block < blocks; ++block) {
        const std::vector<int> ranks = ranks_of(table, topology, placed, block);
        const std::int64_t begin = row_block * option.rows;
        const Shard shard{.row_begin = begin,
                          .row_end = std::min(begin + option.rows, table.num_rows),
                          .column_begin = block * option.columns,
                          .column_end = (block + 1) * option.columns};
        const bool replicated = placed.type == ShardingType::kDataParallel;
        for (int i = replicated ? 0 : row_block;
             i < (replicated ? std::ssize(ranks) : row_block + 1); ++i) {
          sharding.shards.push_back(shard);
          sharding.shards.back().rank = ranks[i];
        }
      }
    }
    plan.tables.push_back(std::move(sharding));
  }
  return plan;
}

}  // namespace serrate
