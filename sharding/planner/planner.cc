#include "serrate/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>

#include "sharding/estimate/serrate_estimator.h"
#include "sharding/files/quantity.h"
#include "sharding/planner/bound.h"
#include "sharding/planner/infeasible.h"
#include "sharding/planner/misfits.h"
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

// Where the search may begin: a placement as candidates of the problem; nothing when it has others.
std::vector<ItemPlacement> to_items(const PlannerProblem& problem,
                                    std::span<const PlacedTable> tables) {
  std::vector<ItemPlacement> items;
  for (const PlannerItem& item : problem.items) {
    const PlacedTable& placed = tables[item.tables.front()];
    const auto same = std::ranges::find_if(item.candidates, [&](const Candidate& c) {
      return c.type == placed.type && c.kernel == placed.kernel;
    });
    if (same == item.candidates.end()) return {};
    items.push_back({static_cast<int>(same - item.candidates.begin()), placed.blocks});
  }
  return items;
}

// Where the tables in their cheapest shardings fill most of the memory, or the bound has a price
// for it, most placements do not fit and the objectives lead to different ones.
bool is_memory_scarce(const PlannerProblem& problem, const PlannerBound& bound) {
  constexpr double kMostFilled = 0.7;
  double device = 0, host = 0;
  for (const PlannerItem& item : problem.items) {
    const auto work = [&](const Candidate& c) {
      return problem.world_size * c.everywhere.total(problem.estimator) +
             c.work.total(problem.estimator);
    };
    const Candidate& cheapest = *std::ranges::min_element(item.candidates, {}, work);
    device += static_cast<double>(cheapest.total_device_bytes());
    host += static_cast<double>(cheapest.total_host_bytes());
  }
  const auto is_filled = [](double bytes, const std::vector<std::int64_t>& has) {
    return bytes > kMostFilled * std::accumulate(has.begin(), has.end(), 0.0);
  };
  return bound.device_price > 0 || bound.host_price > 0 ||
         is_filled(device, problem.device_bytes) || is_filled(host, problem.host_bytes);
}

struct Plan {
  std::vector<PlacedTable> tables = {};
  PlanCost cost = {};
};

class PlanSearch {
 public:
  PlanSearch(const PlannerModel& model, const PlannerTopology& topology,
             const PlannerOptions& options)
      : model_(model),
        topology_(topology),
        options_(options),
        deadline_(Clock::now() + options.time_limit) {}

  // Keeps what it finds, in `part` of the time that is left, if that is better by either objective.
  // The search counts the memory of each table for itself: when all together do not fit, it gets
  // less.
  void search(const PlannerProblem& problem, const PlannerBound& bound, PlannerObjective objective,
              SearchEffort effort, double part) {
    constexpr int kTries = 8;
    PlannerProblem limited = problem;
    const auto end = Clock::now() + part * std::max(remaining(), Duration(0));
    for (int i = 0; i < kTries; ++i) {
      PlannerOptions options = options_;
      options.objective = objective;
      options.time_limit =
          std::max(std::chrono::milliseconds(1),
                   std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()));
      std::vector<std::vector<ItemPlacement>> starts;
      for (const Plan& plan : best_) {
        if (!plan.tables.empty()) starts.push_back(to_items(limited, plan.tables));
      }
      const SearchResult found = search_placement(limited, bound, options, starts, effort);
      // What the search knows of TorchRec's costs is exact.
      if (options.estimator == PlannerEstimator::kTorchRec && objective == options_.objective) {
        is_best_ |= found.is_best;
      }
      if (found.items.empty()) return;
      auto tables = to_placed(limited, found, model_.tables.size());
      PlanCost cost = cost_of(model_, topology_, tables, options_.estimator);
      const Excess over = most_over(cost, problem);
      if (over.bytes == 0) return keep({std::move(tables), std::move(cost)});
      if (closest_.bytes == 0 || over.bytes < closest_.bytes) closest_ = over;
      if (!found.within_memory) return;
      auto& near =
          topology_.device == PlannerDevice::kCuda ? limited.device_bytes : limited.host_bytes;
      for (std::int64_t& bytes : near) bytes = std::max<std::int64_t>(bytes - over.bytes, 0);
    }
  }
  const Plan& best(PlannerObjective objective) const {
    return best_[static_cast<std::size_t>(objective)];
  }
  // No plan is cheaper in the objective that is asked for; if nothing was found, there is none.
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
        remaining() <= Duration(0) ? ", or a longer time limit" : "");
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Duration = std::chrono::duration<double>;
  Duration remaining() const { return deadline_ - Clock::now(); }
  void keep(const Plan& found) {
    for (const auto objective : {PlannerObjective::kMaxRank, PlannerObjective::kCriticalPath}) {
      Plan& best = best_[static_cast<std::size_t>(objective)];
      if (best.tables.empty() || found.cost.of(objective) < best.cost.of(objective)) best = found;
    }
  }

  const PlannerModel& model_;
  const PlannerTopology& topology_;
  const PlannerOptions& options_;
  Clock::time_point deadline_;
  std::array<Plan, 2> best_;  // by PlannerObjective
  bool is_best_ = false;
  Excess closest_;
};

}  // namespace

PlannerResult plan_sharding(const PlannerModel& model, const PlannerTopology& topology,
                            const PlannerOptions& options) {
  using enum PlannerObjective;
  PlannerProblem problem = planner_problem(model, topology, options.estimator);
  PlannerResult result;
  result.infeasible = prove_infeasible(problem, model);
  if (!result.infeasible.empty()) {
    result.proved_infeasible = true;
    return result;
  }
  if (const auto misfit = drop_misfits(problem)) {
    result.infeasible = describe_misfit(problem, *misfit, model);
    result.proved_infeasible = true;
    return result;
  }
  PlanSearch search(model, topology, options);
  const auto search_all = [&](PlannerObjective objective, const PlannerBound& bound,
                              SearchEffort effort, double part) {
    search.search(problem, bound, objective, effort, part);
    // An exchange of its own costs messages, which the search does not see.
    const bool waits = topology.intra_node_latency > 0 || topology.inter_node_latency > 0;
    if (options.estimator != PlannerEstimator::kSerrate || !waits) return;
    using enum ShardingType;
    constexpr std::array kReplicated{kDataParallel};
    constexpr std::array kThroughNodes{kTableRowWise, kGrid};
    constexpr std::array kBoth{kDataParallel, kTableRowWise, kGrid};
    search.search(without(problem, kReplicated), bound, objective, effort, part);
    search.search(without(problem, kThroughNodes), bound, objective, effort, part);
    search.search(without(problem, kBoth), bound, objective, effort, part);
  };
  const bool is_rank = options.objective == kMaxRank;
  const PlannerBound bound = planner_bound(problem, options.objective);
  const PlannerBound other = planner_bound(problem, is_rank ? kCriticalPath : kMaxRank);
  // The same plans whatever is asked for, of which the best one by that is taken: so neither
  // objective's plan is beaten by the other's. Large problems with plenty of memory, where both
  // searches are long and their plans alike, have that alone which is asked for.
  const bool scarce = is_memory_scarce(problem, bound) || is_memory_scarce(problem, other);
  const SearchEffort effort = scarce ? SearchEffort::kScarce : SearchEffort::kPlenty;
  const bool both = scarce || is_small(problem);
  if (both || is_rank) search_all(kMaxRank, is_rank ? bound : other, effort, both ? 0.4 : 1);
  if (!search.is_best()) {
    if (both || !is_rank) {
      search_all(kCriticalPath, is_rank ? other : bound, effort, scarce ? 0.6 : 1);
    }
    if (scarce) search_all(kMaxRank, is_rank ? bound : other, SearchEffort::kRefine, 1);
  }
  const Plan& plan = search.best(options.objective);
  if (plan.tables.empty() && !model.tables.empty()) {
    result.proved_infeasible = search.is_best();
    result.infeasible = search.describe_failure();
    return result;
  }
  result.tables = plan.tables;
  result.cost = plan.cost;
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
