#include "serrate/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "sharding/estimate/serrate_estimator.h"
#include "sharding/files/quantity.h"
#include "sharding/planner/bound.h"
#include "sharding/planner/infeasible.h"
#include "sharding/planner/problem.h"
#include "sharding/planner/search.h"

namespace serrate {
namespace {

// Where a placement needs the most bytes beyond what a rank has for tables.
struct Excess {
  std::int64_t bytes = 0;
  int rank = 0;
  bool on_device = false;
  std::int64_t needed = 0;
};

Excess most_over(const PlanCost& cost, const PlannerProblem& problem) {
  Excess most;
  const auto compare = [&](int rank, bool on_device, std::int64_t needed, std::int64_t has) {
    if (needed - has > most.bytes) most = {needed - has, rank, on_device, needed};
  };
  for (int rank = 0; rank < problem.world_size; ++rank) {
    compare(rank, true, cost.device_bytes[rank], problem.device_bytes[rank]);
    compare(rank, false, cost.host_bytes[rank], problem.host_bytes[rank]);
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
    constexpr int kTries = 8;
    PlannerProblem limited = problem;
    for (int i = 0; i < kTries; ++i) {
      PlannerOptions options = options_;
      options.time_limit = std::max(std::chrono::milliseconds(1), remaining());
      const SearchResult found = search_placement(limited, bound_, options);
      // What the search knows of TorchRec's costs is exact.
      if (options.estimator == PlannerEstimator::kTorchRec) is_best_ = found.is_best;
      if (found.items.empty()) return;
      auto tables = to_placed(limited, found, model_.tables.size());
      PlanCost cost = cost_of(model_, topology_, tables, options_.estimator);
      const Excess over = most_over(cost, problem);
      if (over.bytes == 0) return keep(std::move(tables), std::move(cost));
      if (closest_.bytes == 0 || over.bytes < closest_.bytes) closest_ = over;
      if (!found.within_memory) return;
      auto& near =
          topology_.device == PlannerDevice::kCuda ? limited.device_bytes : limited.host_bytes;
      for (std::int64_t& bytes : near) bytes = std::max<std::int64_t>(bytes - over.bytes, 0);
    }
  }
  // No plan is cheaper than what was found; if nothing was, there is none.
  bool is_best() const { return is_best_; }
  // Why nothing was found.
  std::string describe_failure() const {
    const std::string tried =
        is_best_ ? "no placement of the tables is within the memory (all were tried)"
                 : "no plan within the memory was found, nor proved impossible";
    if (closest_.bytes == 0) return tried + " (give ranks more memory)";
    const std::int64_t has = closest_.needed - closest_.bytes;
    return fmt::format(
        "{}: the closest one needs {} of {} memory on rank {}, which has {} for tables and their "
        "buffers (give it {} more, or allow other sharding types, kernels or ranks{})",
        tried, format_bytes(closest_.needed), closest_.on_device ? "device" : "host", closest_.rank,
        format_bytes(has), format_bytes(closest_.bytes),
        remaining().count() <= 0 ? ", or a longer time limit" : "");
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
  bool is_best_ = false;
  Excess closest_;
};

}  // namespace

PlannerResult plan_sharding(const PlannerModel& model, const PlannerTopology& topology,
                            const PlannerOptions& options) {
  const PlannerProblem problem = planner_problem(model, topology, options.estimator);
  PlannerResult result;
  result.infeasible = prove_infeasible(problem, model);
  if (!result.infeasible.empty()) {
    result.proved_infeasible = true;
    return result;
  }
  const PlannerBound bound = planner_bound(problem, options.objective);
  PlanSearch search(model, topology, options, bound, result);
  search.search(problem);
  if (options.estimator == PlannerEstimator::kSerrate) {
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
    result.proved_infeasible = search.is_best();
    result.infeasible = search.describe_failure();
    return result;
  }
  const double latency =
      options.estimator == PlannerEstimator::kSerrate ? serrate_latency(model, topology, {}) : 0;
  const double found = result.objective(options.objective);
  const double bound_found =
      search.is_best() ? found
                       : latency + raise_bound(problem, options.objective, bound, found - latency);
  result.bound = std::min(bound_found, found);
  return result;
}

}  // namespace serrate
