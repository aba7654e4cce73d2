#include "sharding/planner/phases.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

namespace serrate {
namespace {

PhaseTimes times_of(const Candidate& c, PlannerEstimator estimator, PlannerObjective objective) {
  if (objective == PlannerObjective::kCriticalPath) return phase_times(estimator, c.type, c.time);
  return {c.time.total(estimator)};
}

bool has_type(const TypeSet& types, ShardingType type) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

// The type whose candidates do the same with more freedom, or at less cost.
std::optional<ShardingType> better_type(ShardingType type) {
  switch (type) {
    case ShardingType::kTableColumnWise:
      return ShardingType::kColumnWise;
    case ShardingType::kColumnWise:
      return ShardingType::kTableWise;
    case ShardingType::kGrid:
      return ShardingType::kTableRowWise;
    default:
      return {};
  }
}

// Another candidate of the item is as good wherever this one is put.
bool has_better(const PlannerItem& item, const Candidate& c) {
  const auto better = better_type(c.type);
  return better && std::ranges::any_of(item.candidates, [&](const Candidate& other) {
           return other.type == *better && other.kernel == c.kernel &&
                  other.num_blocks == c.num_blocks;
         });
}

// The types that are not worth trying where a better one is there. On the critical path, tables
// that wait for each other anyway are better of one type; so all or none of them have to change.
TypeSet avoidable_types(const PlannerProblem& problem, PlannerObjective objective) {
  using enum ShardingType;
  TypeSet types{kTableColumnWise, kColumnWise, kGrid};
  if (objective == PlannerObjective::kMaxRank) return types;
  std::erase_if(types, [&](ShardingType type) {
    return std::ranges::any_of(problem.items, [&](const PlannerItem& item) {
      return std::ranges::any_of(item.candidates, [&](const Candidate& c) {
        return c.type == type && !has_better(item, c);
      });
    });
  });
  return types;
}

std::vector<int> usable_candidates(const PlannerProblem& problem, int item,
                                   const TypeSet& avoidable, const Restriction& restriction) {
  const auto& candidates = problem.items[item].candidates;
  std::vector<int> all, usable;
  for (int c = 0; c < std::ssize(candidates); ++c) {
    if (!restriction.allowed.empty() && !restriction.allowed[item][c]) continue;
    const ShardingType type = candidates[c].type;
    if (has_type(avoidable, type) && has_better(problem.items[item], candidates[c])) continue;
    all.push_back(c);
    if (has_type(restriction.types, type)) usable.push_back(c);
  }
  return usable.empty() ? all : usable;
}

// For each phase the first one that it is proportional to for all candidates, or itself.
std::array<int, kMostPhases> merge_proportional(const std::vector<PhaseTimes>& all) {
  std::array<int, kMostPhases> into{};
  for (int k = 0; k < kMostPhases; ++k) {
    into[k] = k;
    for (int j = 0; j < k && into[k] == k; ++j) {
      double factor = -1;
      const bool proportional = std::ranges::all_of(all, [&](const PhaseTimes& t) {
        if (factor < 0 && t[j] > 0) factor = t[k] / t[j];
        return t[j] > 0 ? std::abs(t[k] - factor * t[j]) <= 1e-12 * t[k] : t[k] == 0;
      });
      if (into[j] == j && proportional) into[k] = j;
    }
  }
  return into;
}

}  // namespace

Phases make_phases(const PlannerProblem& problem, PlannerObjective objective,
                   const Restriction& restriction) {
  std::vector<std::vector<int>> usable;
  std::vector<PhaseTimes> placed;  // of all candidates that are somewhere and not everywhere
  const TypeSet avoidable = avoidable_types(problem, objective);
  for (int i = 0; i < std::ssize(problem.items); ++i) {
    usable.push_back(usable_candidates(problem, i, avoidable, restriction));
    for (const int c : usable.back()) {
      const Candidate& candidate = problem.items[i].candidates[c];
      if (candidate.scope == BlockScope::kAll) continue;
      placed.push_back(times_of(candidate, problem.estimator, objective));
    }
  }
  const auto into = merge_proportional(placed);
  std::array<int, kMostPhases> index{};
  Phases phases;
  for (int k = 0; k < kMostPhases; ++k) {
    const bool used = std::ranges::any_of(placed, [&](const PhaseTimes& t) { return t[k] > 0; });
    index[k] = into[k] == k && used ? phases.num_phases++ : -1;
  }
  phases.num_phases = std::max(phases.num_phases, 1);
  for (std::size_t i = 0; i < usable.size(); ++i) {
    auto& choices = phases.items.emplace_back();
    for (const int c : usable[i]) {
      const Candidate& candidate = problem.items[i].candidates[c];
      const PhaseTimes times = times_of(candidate, problem.estimator, objective);
      Phases::Choice choice{.candidate = c, .time = {}};
      choice.uniform = candidate.everywhere.total(problem.estimator);
      choice.total = std::accumulate(times.begin(), times.end(), 0.0);
      choice.work = candidate.work.total(problem.estimator);
      if (candidate.scope == BlockScope::kAll) {
        choice.uniform += choice.total;
        choice.longest = choice.total;
      } else {
        choice.time.resize(phases.num_phases);
        for (int k = 0; k < kMostPhases; ++k) {
          // A merged phase is as long as its times together.
          const int at = index[into[k]];
          if (at >= 0) choice.time[at] += times[k];
        }
        choice.longest = *std::ranges::max_element(choice.time);
      }
      choices.push_back(std::move(choice));
    }
  }
  return phases;
}

}  // namespace serrate
