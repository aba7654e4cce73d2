#include "sharding/planner/searcher.h"

#include <numeric>
#include <ranges>

namespace serrate {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

Searcher::Searcher(const PlannerProblem& problem, const PlannerBound& bound,
                   const PlannerOptions& options, const TypeSet& types, Clock::time_point deadline)
    : problem_(problem),
      bound_(bound),
      phases_(make_phases(problem, options.objective, types)),
      state_(problem, phases_),
      random_(options.seed),
      deadline_(deadline) {}

SearchResult Searcher::result() {
  restore(best_);
  return {state_.placement(), best_.objective, state_.within_memory()};
}

bool Searcher::Snapshot::better_than(const Snapshot& other) const {
  if (excess != other.excess && (excess > 0 || other.excess > 0)) return excess < other.excess;
  return objective < other.objective;
}

Searcher::Snapshot Searcher::snapshot() const {
  Snapshot s{.objective = state_.objective(), .excess = state_.memory_excess()};
  for (int i = 0; i < state_.num_items(); ++i) {
    s.choices.push_back(state_.choice(i));
    s.blocks.emplace_back(state_.blocks(i).begin(), state_.blocks(i).end());
  }
  return s;
}

void Searcher::restore(const Snapshot& s) {
  clear();
  for (int i = 0; i < state_.num_items(); ++i) state_.place(i, s.choices[i], s.blocks[i]);
}

void Searcher::clear() {
  for (int i = 0; i < state_.num_items(); ++i) {
    if (state_.choice(i) >= 0) state_.remove(i);
  }
}

void Searcher::note_best() {
  const double objective = state_.objective();
  if (best_.excess <= 0 && objective >= best_.objective) return;
  const double excess = state_.memory_excess();
  if (excess > best_.excess || (excess == best_.excess && objective >= best_.objective)) return;
  best_ = snapshot();
}

Searcher::Removed Searcher::take_out(int item) {
  Removed removed{
      item, state_.choice(item), {state_.blocks(item).begin(), state_.blocks(item).end()}};
  state_.remove(item);
  return removed;
}

// Places an item by its choice of the least energy, among all ranks or some. Returns that, infinite
// when it has no place.
double Searcher::place_cheapest(int item, std::span<const int> ranks) {
  std::vector<int> choices(phases_.items[item].size());
  std::iota(choices.begin(), choices.end(), 0);
  return place_cheapest_of(item, choices, ranks);
}

double Searcher::place_cheapest_of(int item, std::span<const int> choices,
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
