#include "serrate/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

#include "serrate/error.h"
#include "sharding/planner_bound.h"
#include "sharding/planner_problem.h"
#include "sharding/planner_search.h"
#include "sharding/serrate_estimator.h"

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

// Calls visit(rank, rows) for the shards of column block `block`, rows of it on a rank.
template <typename Visit>
void for_each_shard(const PlannerTable& table, const PlannerTopology& topology,
                    const PlacedTable& placed, const ShardingOption& option, int block,
                    const Visit& visit) {
  const std::vector<int> ranks = ranks_of(table, topology, placed, block);
  for (int i = 0; i < std::ssize(ranks); ++i) {
    visit(ranks[i], option.num_row_blocks > 1 ? rows_of(table, option, i) : option.rows);
  }
}

// What each rank spends and holds.
class RankSums {
 public:
  RankSums(PlannerEstimator estimator, int world_size)
      : estimator_(estimator), held_(world_size), totals_(world_size), phases_(world_size) {}

  void add(int rank, ShardingType type, const ShardEstimate& e) {
    held_[rank].add(e);
    totals_[rank] += e.total(estimator_);
    const PhaseTimes times = phase_times(estimator_, type, e);
    for (int k = 0; k < kMostPhases; ++k) phases_[rank][k] += times[k];
  }
  const ShardEstimate& of(int rank) const { return held_[rank]; }
  double max_rank() const { return *std::ranges::max_element(totals_); }
  double critical_path() const {
    double sum = 0;
    for (int k = 0; k < kMostPhases; ++k) {
      double slowest = 0;
      for (const PhaseTimes& times : phases_) slowest = std::max(slowest, times[k]);
      sum += slowest;
    }
    return sum;
  }

 private:
  PlannerEstimator estimator_;
  std::vector<ShardEstimate> held_;  // [world_size]
  std::vector<double> totals_;       // [world_size]
  std::vector<PhaseTimes> phases_;   // [world_size]
};

// What no table has for itself: waiting for messages, and the buffers of all exchanges.
void add_shared_costs(const PlannerModel& model, const PlannerTopology& topology,
                      std::span<const PlacedTable> tables, const RankSums& sums, PlanCost& cost) {
  const double latency = serrate_latency(model, topology, tables);
  cost.max_rank += latency;
  cost.critical_path += latency;
  const auto predicted = predict_memory(model, to_sharding_plan(model, topology, tables));
  auto& near = topology.device == PlannerDevice::kCuda ? cost.device_bytes : cost.host_bytes;
  for (int rank = 0; rank < topology.world_size; ++rank) {
    near[rank] += predicted[rank].exchange - sums.of(rank).exchange_bytes;
  }
}

// Bytes of a rank beyond what it has.
std::int64_t most_over(const PlanCost& cost, const PlannerProblem& problem) {
  std::int64_t most = 0;
  for (int rank = 0; rank < problem.world_size; ++rank) {
    most = std::max({most, cost.device_bytes[rank] - problem.device_bytes[rank],
                     cost.host_bytes[rank] - problem.host_bytes[rank]});
  }
  return most;
}

std::vector<PlacedTable> to_placed(const PlannerProblem& problem, const SearchResult& found,
                                   std::size_t num_tables) {
  std::vector<PlacedTable> tables(num_tables);
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    const Candidate& c = problem.items[i].candidates[found.items[i].candidate];
    for (const int t : problem.items[i].tables) {
      tables[t] = {c.type, c.kernel, found.items[i].blocks};
    }
  }
  return tables;
}

// The problem for a search that leaves some types out where an item has others.
PlannerProblem without(const PlannerProblem& problem, std::span<const ShardingType> types) {
  PlannerProblem rest = problem;
  for (PlannerItem& item : rest.items) {
    const auto is_left_out = [&](const Candidate& c) {
      return std::ranges::find(types, c.type) != types.end();
    };
    if (!std::ranges::all_of(item.candidates, is_left_out)) {
      std::erase_if(item.candidates, is_left_out);
    }
  }
  return rest;
}

class PlanSearch {
 public:
  PlanSearch(const PlannerModel& model, const PlannerTopology& topology,
             const PlannerOptions& options, const PlannerBound& bound, PlannerResult& result)
      : model_(model),
        topology_(topology),
        options_(options),
        bound_(bound),
        deadline_(Clock::now() + options.time_limit),
        result_(result) {}

  // Keeps what it finds if that is better. The search counts the memory of each table for itself:
  // when all together do not fit, it gets less.
  void search(const PlannerProblem& problem) {
    constexpr int kTries = 4;
    PlannerProblem limited = problem;
    for (int i = 0; i < kTries; ++i) {
      PlannerOptions options = options_;
      options.time_limit = std::max(std::chrono::milliseconds(1), remaining());
      const SearchResult found = search_placement(limited, bound_, options);
      if (!found.within_memory) return;
      auto tables = to_placed(limited, found, model_.tables.size());
      PlanCost cost = cost_of(model_, topology_, tables, options_.estimator);
      const std::int64_t over = most_over(cost, problem);
      if (over == 0) return keep(std::move(tables), std::move(cost));
      auto& near =
          topology_.device == PlannerDevice::kCuda ? limited.device_bytes : limited.host_bytes;
      for (std::int64_t& bytes : near) bytes = std::max<std::int64_t>(bytes - over, 0);
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::chrono::milliseconds remaining() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now());
  }
  void keep(std::vector<PlacedTable> tables, PlanCost cost) {
    PlannerResult found{.tables = std::move(tables), .cost = std::move(cost)};
    const PlannerObjective o = options_.objective;
    if (!result_.tables.empty() && found.objective(o) >= result_.objective(o)) return;
    result_.tables = std::move(found.tables);
    result_.cost = std::move(found.cost);
  }

  const PlannerModel& model_;
  const PlannerTopology& topology_;
  const PlannerOptions& options_;
  const PlannerBound& bound_;
  Clock::time_point deadline_;
  PlannerResult& result_;
};

}  // namespace

PlanCost cost_of(const PlannerModel& model, const PlannerTopology& topology,
                 std::span<const PlacedTable> tables, PlannerEstimator estimator) {
  check(tables.size() == model.tables.size(), "a placement has to be given for each table");
  RankSums sums(estimator, topology.world_size);
  ShardEstimate everywhere;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const PlannerTable& table = model.tables[t];
    const PlacedTable& placed = tables[t];
    const ShardingOption option =
        sharding_option(table, placed.type, placed.kernel, topology, row_ranks_of(table, topology));
    check_placed(table, placed, option, topology);
    everywhere.add(estimate_everywhere(estimator, table, option, topology, model.batch_size));
    std::int64_t rows = -1;
    ShardEstimate e;
    for (int block = 0; block < std::max<int>(1, static_cast<int>(placed.blocks.size())); ++block) {
      for_each_shard(table, topology, placed, option, block, [&](int rank, std::int64_t rows_here) {
        if (rows_here != rows) {
          rows = rows_here;
          e = estimate_shard(estimator, table, option, rows, topology, model.batch_size);
        }
        sums.add(rank, placed.type, e);
      });
    }
  }
  PlanCost cost{.max_rank = sums.max_rank() + everywhere.total(estimator),
                .critical_path = sums.critical_path() + everywhere.total(estimator)};
  for (int rank = 0; rank < topology.world_size; ++rank) {
    cost.device_bytes.push_back(sums.of(rank).device_bytes);
    cost.host_bytes.push_back(sums.of(rank).host_bytes);
  }
  if (estimator == PlannerEstimator::kSerrate) {
    add_shared_costs(model, topology, tables, sums, cost);
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
  PlanSearch search(model, topology, options, bound, result);
  search.search(problem);
  if (options.estimator == PlannerEstimator::kSerrate) {
    result.bound += serrate_latency(model, topology, {});
    // An exchange of its own costs messages, which the search does not see.
    const bool waits = topology.intra_node_latency > 0 || topology.inter_node_latency > 0;
    using enum ShardingType;
    constexpr std::array kReplicated{kDataParallel};
    constexpr std::array kThroughNodes{kTableRowWise, kGrid};
    constexpr std::array kBoth{kDataParallel, kTableRowWise, kGrid};
    if (waits) {
      search.search(without(problem, kReplicated));
      search.search(without(problem, kThroughNodes));
      search.search(without(problem, kBoth));
    }
  }
  if (result.tables.empty() && !model.tables.empty()) {
    result.infeasible =
        "no plan within the memory was found, nor proved impossible (try a longer --time-limit, "
        "more memory per rank, or kernels that keep rows in host memory)";
  }
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
    TableSharding sharding{.table = table.name, .type = placed.type, .kernel = placed.kernel};
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
