#include "sharding/planner/search.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>

#include "sharding/planner/exact.h"
#include "sharding/planner/kernel_sets.h"
#include "sharding/planner/moves.h"

namespace serrate {
namespace {

constexpr ShardLimit kFirstLimits[] = {{1.0}, {0.55}};
constexpr ShardLimit kMoreLimits[] = {{0.75}, {0.4}, {0.3}};
constexpr ShardLimit kOnePhaseLimits[] = {{1.0}, {0.75}, {0.55}};
constexpr ShardLimit kPhaseLimits[] = {{0.25}, {0.27}, {0.3}, {0.33}, {0.36}, {0.4}, {0.45}, {0.5}};

// For searches within a set of kernels.
constexpr ShardLimit kKernelLimits[] = {{0.6, 1, 0.98}, {1.0, 1, 0.98}, {1.7, 1, 0.98}};

// Where memory is scarce.
std::vector<ShardLimit> scarce_limits() {
  std::vector<ShardLimit> limits;
  for (const double memory : {1.0, 0.4, 0.15, 0.05, 0.01}) {
    for (const double time : {0.6, 1.0, 1.3, 1.7, 2.2, 3.0}) {
      limits.push_back({time, memory, memory > 0.5 ? 0.98 : 0.9});
      if (memory > 0.1 && memory <= 0.5) limits.push_back({time, memory, 0.98});
    }
  }
  // Large shards may leave room on every rank that no other one fits in.
  for (const double filled : {0.9, 0.83, 0.76}) {
    for (const double time : {0.6, 1.0, 1.3, 1.7, 2.2, 3.0}) limits.push_back({time, 1, filled});
  }
  return limits;
}

// Whether an item may be of a type, in so many column blocks or more.
bool has_type(const PlannerProblem& problem, ShardingType type, int least_blocks) {
  return std::ranges::any_of(problem.items, [&](const PlannerItem& item) {
    return std::ranges::any_of(item.candidates, [&](const Candidate& c) {
      return c.type == type && c.num_blocks >= least_blocks;
    });
  });
}

// Of the type sets: a type on a rank alone, and table_row_wise.
constexpr std::size_t kRanksAndNodes = 2;

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

class Search {
 public:
  Search(const PlannerProblem& problem, const PlannerBound& bound, const PlannerOptions& options,
         std::span<const std::vector<ItemPlacement>> starts, SearchEffort effort)
      : problem_(problem),
        bound_(bound),
        options_(options),
        starts_(starts),
        effort_(effort),
        deadline_(SearchMoves::Clock::now() + options.time_limit),
        evaluations_(evaluations()) {}

  SearchResult run() const {
    constexpr std::int64_t kTiny = 200;  // items x ranks
    constexpr std::int64_t kMostTries = 20'000;
    auto best = best_starts();
    if (!best.front()->has_placement()) return {};
    SearchResult tried;
    if (size() <= kTiny && !best.front()->is_late()) {
      tried = best.front()->result();
      tried.is_best = try_all_placements(problem_, options_.objective, kMostTries, tried);
      if (tried.is_best) return tried;
    }
    for (Moves& moves : best) {
      if (moves->is_late()) continue;
      narrow(moves);
      improve(*moves, evaluations_ / std::ssize(best));
    }
    SearchResult found = (*std::ranges::min_element(best, is_better))->result();
    const bool tried_is_better =
        tried.within_memory && (!found.within_memory || tried.objective < found.objective);
    return tried_is_better ? tried : found;
  }

 private:
  std::int64_t size() const { return std::ssize(problem_.items) * problem_.world_size; }
  bool is_small() const { return serrate::is_small(problem_); }
  // Evaluations of more phases, and annealing, take longer. Small problems, with few ways to even
  // out what is left, get more of them; where memory is scarce there are more starts to share.
  std::int64_t evaluations() const {
    const std::int64_t num_items = std::ssize(problem_.items);
    const bool one_phase = options_.objective == PlannerObjective::kMaxRank;
    const bool scarce = effort_ != SearchEffort::kPlenty;
    if (is_small()) {
      return std::min<std::int64_t>(num_items * num_items * num_items * (scarce ? 60 : 180),
                                    scarce      ? 200'000
                                    : one_phase ? 1'400'000
                                                : 300'000);
    }
    const std::int64_t more = std::max<std::int64_t>(num_items - 500, 0);
    const std::int64_t all = one_phase ? 1'000'000 + more * 4'000 : 400'000 + more * 2'000;
    if (!scarce) return all;
    return one_phase ? all / 8 : all * 3 / 5;
  }

  using Moves = std::unique_ptr<SearchMoves>;
  static bool is_better(const Moves& a, const Moves& b) { return a->better_than(*b); }

  Moves moves_of(const Restriction& restriction) const {
    auto moves = std::make_unique<SearchMoves>(problem_, bound_, options_, restriction, deadline_);
    for (const auto& start : starts_) moves->adopt(start);
    return moves;
  }

  // Goes on from the best placement with the candidates alone with which a better one is possible,
  // in whichever memory. Not where that placement cannot be had with them.
  void narrow(Moves& moves) const {
    constexpr double kRounding = 1e-9;  // the phases are summed in another order
    const double known = moves->objective_within_memory();
    Restriction narrowed{moves->types(), candidates_below(problem_, bound_, known)};
    auto fewer = std::make_unique<SearchMoves>(problem_, bound_, options_, narrowed, deadline_);
    fewer->adopt(moves->result().items);
    const bool is_kept = fewer->objective_within_memory() <= known * (1 + kRounding);
    if (fewer->has_placement() && is_kept) moves = std::move(fewer);
  }

  // The restrictions to go on with, the best first. Of many items there is time for one alone.
  std::vector<Moves> best_starts() const {
    constexpr std::size_t kKept = 2;
    const std::vector<TypeSet> sets = type_sets(problem_, options_.objective);
    std::vector<Moves> all;
    if (effort_ == SearchEffort::kRefine) {
      all.push_back(moves_of({sets.front()}));
      return all;
    }
    for (const TypeSet& types : sets) {
      all.push_back(moves_of({types}));
      all.back()->start(kFirstLimits);
      if (effort_ == SearchEffort::kScarce && is_small()) {
        all.back()->start(scarce_limits());
        all.back()->descend(evaluations_ / 16);
      }
      if (all.back()->is_late()) break;
    }
    if (is_small()) start_from_choices(sets.front(), all);
    if (has_classes()) start_by_class(sets[kRanksAndNodes], all);
    std::ranges::stable_sort(all, is_better);
    if (all.size() > kKept) all.resize(kKept);
    for (const auto& moves : all) {
      if (moves->is_late()) break;
      moves->start(kMoreLimits);
      moves->descend(evaluations_ / 8);
    }
    std::ranges::stable_sort(all, is_better);
    if (effort_ == SearchEffort::kScarce || !is_small()) all.resize(1);
    return all;
  }

  // Whether there are so few items a rank that what is on all ranks of a node leaves no room for
  // the longest shards, on the critical path, unless some nodes have less of it.
  bool has_classes() const {
    constexpr std::int64_t kFewPerRank = 8;
    constexpr std::int64_t kMost = 250'000;  // items x ranks: twice the largest that was measured
    return !is_small() && size() <= kMost && effort_ == SearchEffort::kPlenty &&
           problem_.num_nodes() > 1 && options_.objective == PlannerObjective::kCriticalPath &&
           std::ssize(problem_.items) <= kFewPerRank * problem_.world_size &&
           has_type(problem_, ShardingType::kTableRowWise, 1);
  }
  void start_by_class(const TypeSet& types, std::vector<Moves>& all) const {
    if (all.back()->is_late()) return;
    const int first_nodes = (problem_.num_nodes() + 3) / 4;
    const NodeClasses classes[] = {
        {first_nodes, 1.0, 0.6}, {first_nodes, 0.9, 0.5}, {first_nodes, 0.95, 0.6}};
    all.push_back(moves_of({types}));
    all.back()->start_by_class(classes, evaluations_ / 40);
  }

  // Moves change one item at a time, to what is cheapest beside the others as they are: which items
  // are on which node, and which have their rows in host memory, is better chosen before, for all
  // of them together. Where memory is scarce, the best of these starts have some items taken out
  // and put back.
  void start_from_choices(const TypeSet& types, std::vector<Moves>& all) const {
    constexpr std::ptrdiff_t kRuined = 6;
    if (all.back()->is_late()) return;
    double known = std::numeric_limits<double>::infinity();
    for (const auto& moves : all) known = std::min(known, moves->objective_within_memory());
    std::vector<Moves> chosen;
    if (effort_ == SearchEffort::kScarce) start_from_kernels(types, known, chosen);
    start_from_relaxed(types, known, chosen);
    if (effort_ == SearchEffort::kScarce) {
      std::ranges::stable_sort(chosen, is_better);
      const std::ptrdiff_t num_ruined = std::min(std::ssize(chosen), kRuined);
      for (std::ptrdiff_t i = 0; i < num_ruined; ++i) {
        chosen[i]->ruin_and_recreate(evaluations_ / 2 / num_ruined);
      }
    }
    std::ranges::move(chosen, std::back_inserter(all));
  }

  void start_from_kernels(const TypeSet& types, double known, std::vector<Moves>& all) const {
    const Allowed below = candidates_below(problem_, bound_, known);
    const std::vector<Allowed> sets = kernel_sets(problem_, bound_, known);
    for (const Allowed& allowed : sets) {
      if (!all.empty() && all.back()->is_late()) return;
      all.push_back(moves_of({types, in_both(allowed, below)}));
      all.back()->start(kKernelLimits);
      all.back()->descend(std::min(evaluations_ * 3 / 8 / std::ssize(sets), evaluations_ / 16));
    }
  }

  // Adds starts from what the relaxed problem chooses in a few cases of a placement below `known`.
  void start_from_relaxed(const TypeSet& types, double known, std::vector<Moves>& all) const {
    constexpr std::size_t kMost = 4;
    if (SearchMoves::Clock::now() >= deadline_) return;
    const Allowed below = candidates_below(problem_, bound_, known);
    const int cases = effort_ == SearchEffort::kPlenty ? 100 : 60;
    for (const auto& choices : relaxed_choices(problem_, options_.objective, known, kMost, cases)) {
      if (!all.empty() && all.back()->is_late()) return;
      all.push_back(moves_of({types, in_both(with_kernels(choices), below)}));
      all.back()->start(choices);
      if (!all.back()->has_placement()) {
        all.pop_back();
        continue;
      }
      all.back()->descend(evaluations_ / 16);
    }
  }

  // An item that would be left with none keeps those of the first.
  static Allowed in_both(const Allowed& first, const Allowed& second) {
    Allowed both = first;
    for (std::size_t i = 0; i < both.size(); ++i) {
      for (std::size_t c = 0; c < both[i].size(); ++c) both[i][c] = first[i][c] && second[i][c];
      if (std::ranges::find(both[i], true) == both[i].end()) both[i] = first[i];
    }
    return both;
  }

  // In host memory those whose candidate is, and no others.
  Allowed with_kernels(std::span<const ItemChoice> choices) const {
    const auto on_device = [](const Candidate& c) {
      return c.kernel == ComputeKernel::kDense || c.kernel == ComputeKernel::kFused;
    };
    Allowed allowed;
    for (std::size_t i = 0; i < problem_.items.size(); ++i) {
      const auto& candidates = problem_.items[i].candidates;
      auto& of_item = allowed.emplace_back();
      for (const Candidate& c : candidates) {
        of_item.push_back(on_device(c) == on_device(candidates[choices[i].candidate]));
      }
    }
    return allowed;
  }

  // Loads of one phase are best balanced from many starts, of several by annealing.
  void improve(SearchMoves& moves, std::int64_t evaluations) const {
    if (effort_ == SearchEffort::kRefine) {
      moves.descend(evaluations / 4);
      moves.anneal(evaluations / 4);
    } else if (effort_ == SearchEffort::kScarce && is_small()) {
      const std::int64_t stop_at = moves.evaluations() + evaluations;
      moves.restart(scarce_limits(), evaluations / 4);
      moves.restart_nearby(evaluations / 4);
      moves.ruin_and_recreate(stop_at - moves.evaluations());
    } else if (moves.num_phases() == 1) {
      const std::int64_t stop_at = moves.evaluations() + evaluations;
      if (is_small()) {
        moves.ruin_and_recreate(evaluations / 2);
        moves.restart_nearby(evaluations / 4);
      }
      moves.restart(kOnePhaseLimits, stop_at - moves.evaluations());
    } else {
      moves.restart(kPhaseLimits, has_classes() ? evaluations * 7 / 8 : evaluations);
      if (is_small()) {
        moves.ruin_and_recreate(evaluations / 2);
      } else {
        moves.descend(evaluations / 2);
      }
      moves.anneal(evaluations / 2);
    }
  }

  const PlannerProblem& problem_;
  const PlannerBound& bound_;
  const PlannerOptions& options_;
  std::span<const std::vector<ItemPlacement>> starts_;
  SearchEffort effort_;
  SearchMoves::Clock::time_point deadline_;
  std::int64_t evaluations_;
};

}  // namespace

bool is_small(const PlannerProblem& problem) {
  constexpr std::int64_t kSmall = 4'000;  // items x ranks
  return std::ssize(problem.items) * problem.world_size <= kSmall;
}

SearchResult search_placement(const PlannerProblem& problem, const PlannerBound& bound,
                              const PlannerOptions& options,
                              std::span<const std::vector<ItemPlacement>> starts,
                              SearchEffort effort) {
  if (problem.items.empty()) return {.within_memory = true, .is_best = true};
  return Search(problem, bound, options, starts, effort).run();
}

}  // namespace serrate
