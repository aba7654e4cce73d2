#include "sharding/planner/moves.h"

#include <algorithm>
#include <numeric>
#include <ranges>

namespace serrate {

SearchMoves::SearchMoves(const PlannerProblem& problem, const PlannerBound& bound,
                         const PlannerOptions& options, const Restriction& restriction,
                         Clock::time_point deadline)
    : problem_(problem),
      bound_(bound),
      types_(restriction.types),
      phases_(make_phases(problem, options.objective, restriction)),
      state_(problem, phases_),
      random_(options.seed),
      deadline_(deadline) {}

SearchResult SearchMoves::result() {
  restore(best_);
  return {state_.placement(), best_.objective, state_.within_memory()};
}

bool SearchMoves::Snapshot::better_than(const Snapshot& other) const {
  if (excess != other.excess && (excess > 0 || other.excess > 0)) return excess < other.excess;
  return objective < other.objective;
}

SearchMoves::Snapshot SearchMoves::snapshot() const {
  Snapshot s{.objective = state_.objective(), .excess = state_.memory_excess()};
  for (int i = 0; i < state_.num_items(); ++i) {
    s.choices.push_back(state_.choice(i));
    s.blocks.emplace_back(state_.blocks(i).begin(), state_.blocks(i).end());
  }
  return s;
}

void SearchMoves::restore(const Snapshot& s) {
  clear();
  for (int i = 0; i < state_.num_items(); ++i) state_.place(i, s.choices[i], s.blocks[i]);
}

void SearchMoves::clear() {
  for (int i = 0; i < state_.num_items(); ++i) {
    if (state_.choice(i) >= 0) state_.remove(i);
  }
}

void SearchMoves::note_best() {
  const double objective = state_.objective();
  if (best_.excess <= 0 && objective >= best_.objective) return;
  const double excess = state_.memory_excess();
  if (excess > best_.excess || (excess == best_.excess && objective >= best_.objective)) return;
  best_ = snapshot();
}

// The choice of the candidate, or of the one that takes its place (phases.cc); -1: none.
int SearchMoves::choice_like(int item, const ItemPlacement& placed) const {
  const auto& choices = phases_.items[item];
  const Candidate& like = problem_.items[item].candidates[placed.candidate];
  int found = -1;
  for (int c = 0; c < std::ssize(choices); ++c) {
    if (choices[c].candidate == placed.candidate) return c;
    const Candidate& candidate = state_.candidate(item, c);
    if (candidate.kernel == like.kernel && candidate.scope == like.scope &&
        candidate.num_blocks == like.num_blocks) {
      found = c;
    }
  }
  return found;
}

void SearchMoves::adopt(std::span<const ItemPlacement> items) {
  std::vector<int> choices;
  for (int i = 0; i < std::ssize(items); ++i) choices.push_back(choice_like(i, items[i]));
  if (items.empty() || std::ranges::find(choices, -1) != choices.end()) return;
  clear();
  for (int i = 0; i < state_.num_items(); ++i) state_.place(i, choices[i], items[i].blocks);
  note_best();
}

SearchMoves::Removed SearchMoves::take_out(int item) {
  Removed removed{
      item, state_.choice(item), {state_.blocks(item).begin(), state_.blocks(item).end()}};
  state_.remove(item);
  return removed;
}

// Places an item by its choice of the least energy, among all ranks or some. Returns that, infinite
// when it has no place.
double SearchMoves::place_cheapest(int item, std::span<const int> ranks) {
  std::vector<int> choices(phases_.items[item].size());
  std::iota(choices.begin(), choices.end(), 0);
  return place_cheapest_of(item, choices, ranks);
}

double SearchMoves::place_cheapest_of(int item, std::span<const int> choices,
                                      std::span<const int> ranks) {
  double best = kInfinity;
  int best_choice = -1;
  // Backwards, as the first types are those on all ranks, which cost the most to look at.
  for (const int c : choices | std::views::reverse) {
    if (state_.choice_of(item, c).uniform >= best) continue;
    const double energy = state_.cheapest_blocks(item, c, ranks, blocks_);
    if (energy < best) {
      best = energy;
      best_choice = c;
      best_blocks_ = blocks_;
    }
  }
  if (best_choice >= 0) state_.place(item, best_choice, best_blocks_);
  return best;
}

}  // namespace serrate
