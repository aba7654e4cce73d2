#include "sharding/planner/search.h"

#include <algorithm>
#include <memory>

#include "sharding/planner/exact.h"
#include "sharding/planner/searcher.h"

namespace serrate {
namespace {

constexpr ShardLimit kFirstLimits[] = {1.0, 0.55};
constexpr ShardLimit kMoreLimits[] = {0.75, 0.4, 0.3};
constexpr ShardLimit kOnePhaseLimits[] = {1.0, 0.75, 0.55};
constexpr ShardLimit kPhaseLimits[] = {0.25, 0.27, 0.3, 0.33, 0.36, 0.4, 0.45, 0.5};

// Whether an item may be of a type, in so many column blocks or more.
bool has_type(const PlannerProblem& problem, ShardingType type, int least_blocks) {
  return std::ranges::any_of(problem.items, [&](const PlannerItem& item) {
    return std::ranges::any_of(item.candidates, [&](const Candidate& c) {
      return c.type == type && c.num_blocks >= least_blocks;
    });
  });
}

// Restrictions of the candidates to search. On the critical path, each sharding type that is mixed
// in waits for its own slowest rank.
std::vector<TypeSet> type_sets(const PlannerProblem& problem, PlannerObjective objective) {
  using enum ShardingType;
  std::vector<TypeSet> sets{
      {kDataParallel, kTableWise, kRowWise, kColumnWise, kTableRowWise, kTableColumnWise, kGrid}};
  if (objective == PlannerObjective::kMaxRank) return sets;
  const ShardingType on_ranks = has_type(problem, kColumnWise, 2) ? kColumnWise : kTableWise;
  sets.push_back({kDataParallel, kRowWise, on_ranks});
  if (has_type(problem, kTableRowWise, 1)) {
    sets.push_back({kDataParallel, kRowWise, on_ranks, kTableRowWise});
    sets.push_back({kDataParallel, kRowWise, kTableRowWise});
  }
  if (has_type(problem, kGrid, 1)) sets.push_back({kDataParallel, kRowWise, kGrid});
  return sets;
}

// The restriction to go on with.
std::unique_ptr<Searcher> best_start(const PlannerProblem& problem, const PlannerBound& bound,
                                     const PlannerOptions& options,
                                     Searcher::Clock::time_point deadline,
                                     std::int64_t evaluations) {
  constexpr std::size_t kKept = 2;
  std::vector<std::unique_ptr<Searcher>> searchers;
  for (const TypeSet& types : type_sets(problem, options.objective)) {
    searchers.push_back(std::make_unique<Searcher>(problem, bound, options, types, deadline));
    searchers.back()->start(kFirstLimits);
    if (searchers.back()->is_late()) break;
  }
  const auto better = [](const auto& a, const auto& b) { return a->better_than(*b); };
  std::ranges::stable_sort(searchers, better);
  if (searchers.size() > kKept) searchers.resize(kKept);
  for (const auto& searcher : searchers) {
    if (searcher->is_late()) break;
    searcher->start(kMoreLimits);
    searcher->descend(evaluations / 8);
  }
  std::ranges::stable_sort(searchers, better);
  return std::move(searchers.front());
}

// Evaluations of more phases, and annealing, take longer. Small problems, with few ways to even
// out what is left, get more of them.
std::int64_t evaluations_for(std::int64_t num_items, bool is_small, PlannerObjective objective) {
  const bool one_phase = objective == PlannerObjective::kMaxRank;
  if (is_small) {
    return std::min<std::int64_t>(num_items * num_items * num_items * 250,
                                  one_phase ? 3'000'000 : 1'000'000);
  }
  const std::int64_t more = std::max<std::int64_t>(num_items - 500, 0);
  return one_phase ? 1'000'000 + more * 4'000 : 400'000 + more * 2'000;
}

// Loads of one phase are best balanced from many starts; of several, by annealing.
void improve(Searcher& searcher, std::int64_t evaluations, bool is_small) {
  if (searcher.num_phases() == 1) {
    const std::int64_t stop_at = searcher.evaluations() + evaluations;
    searcher.descend(evaluations / 2);
    if (is_small) searcher.ruin_and_recreate(evaluations / 2);
    searcher.restart(kOnePhaseLimits, stop_at - searcher.evaluations());
  } else {
    searcher.restart(kPhaseLimits, evaluations);
    searcher.descend(evaluations / 2);
    if (is_small) searcher.ruin_and_recreate(evaluations / 2);
    searcher.anneal(evaluations / 2);
  }
}

}  // namespace

SearchResult search_placement(const PlannerProblem& problem, const PlannerBound& bound,
                              const PlannerOptions& options) {
  if (problem.items.empty()) return {.within_memory = true, .is_best = true};
  constexpr std::int64_t kTiny = 200, kSmall = 4'000;  // items x ranks
  constexpr std::int64_t kMostTries = 20'000;
  const auto deadline = Searcher::Clock::now() + options.time_limit;
  const std::int64_t num_items = std::ssize(problem.items);
  const std::int64_t size = num_items * problem.world_size;
  const bool is_small = size <= kSmall;
  const std::int64_t evaluations = evaluations_for(num_items, is_small, options.objective);
  const auto searcher = best_start(problem, bound, options, deadline, evaluations);
  SearchResult tried;
  if (size <= kTiny && !searcher->is_late()) {
    tried = searcher->result();
    tried.is_best = try_all_placements(problem, options.objective, kMostTries, tried);
    if (tried.is_best) return tried;
  }
  if (!searcher->is_late()) improve(*searcher, evaluations, is_small);
  SearchResult found = searcher->result();
  const bool tried_is_better =
      tried.within_memory && (!found.within_memory || tried.objective < found.objective);
  return tried_is_better ? tried : found;
}

}  // namespace serrate
