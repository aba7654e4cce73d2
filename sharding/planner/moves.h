#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "sharding/planner/bound.h"
#include "sharding/planner/misfits.h"
#include "sharding/planner/node_classes.h"
#include "sharding/planner/phases.h"
#include "sharding/planner/search.h"
#include "sharding/planner/state.h"

namespace serrate {

// Sharpness of the energy, as powers of 2: rough to build, sharp to finish.
constexpr int kBuildSharpness = 3;
constexpr int kAnnealSharpness = 4;
constexpr int kSearchSharpness = 5;
constexpr int kFinalSharpness = 8;

/// What one shard may take, in a start: of the bound in a phase, of the most memory that a rank
/// has; and what all may of all memory.
struct ShardLimit {
  double time = 1;
  double memory = 1;
  double filled = 1;
};

/// Moves of a search over one restriction of the candidates. Each begins at the best placement so
/// far, and ends after so many evaluations of the energy, or at the deadline.
class SearchMoves {
 public:
  using Clock = std::chrono::steady_clock;
  SearchMoves(const PlannerProblem& problem, const PlannerBound& bound,
              const PlannerOptions& options, const Restriction& restriction,
              Clock::time_point deadline);

  /// Greedy starts, as they are; one at least.
  void start(std::span<const ShardLimit> limits);
  /// A start from choices, not where the state has none of them.
  void start(std::span<const ItemChoice> choices);
  /// Starts from choices for two classes of nodes, each with so many evaluations of local search
  /// and annealing.
  void start_by_class(std::span<const NodeClasses> classes, std::int64_t evaluations);
  /// A placement to begin at, by choices that do the same; nothing when there are none.
  void adopt(std::span<const ItemPlacement> items);
  /// Local search.
  void descend(std::int64_t evaluations);
  /// Local search from greedy starts and variations of them.
  void restart(std::span<const ShardLimit> limits, std::int64_t evaluations);
  /// Local search from the best placement's choices, of which some are changed, where a shard takes
  /// much of a rank, or more ranks than one: what single moves do not come to, as others would have
  /// to make room first.
  void restart_nearby(std::int64_t evaluations);
  /// Annealing and local search: once to loosen the best a little, once to melt it.
  void anneal(std::int64_t evaluations);
  /// Takes some items out and puts them back where they cost the least, in random order and with
  /// some ranks and choices left out at random (as Christiaens and Vanden Berghe 2020); now and
  /// then divides what is on two ranks anew instead. Memory that is not there has a price
  /// meanwhile, which rises while placements take it and falls while they do not (as Vidal et al.
  /// 2012).
  void ruin_and_recreate(std::int64_t evaluations);

  std::int64_t evaluations() const { return state_.evaluations(); }
  bool has_placement() const { return !best_.choices.empty(); }
  int num_phases() const { return phases_.num_phases; }
  bool better_than(const SearchMoves& other) const { return best_.better_than(other.best_); }
  /// ms; infinite when nothing fits.
  double objective_within_memory() const {
    return best_.excess > 0 ? std::numeric_limits<double>::infinity() : best_.objective;
  }
  bool is_late() const { return Clock::now() >= deadline_; }
  const TypeSet& types() const { return types_; }
  SearchResult result();

 private:
  struct Snapshot {
    std::vector<int> choices = {};
    std::vector<std::vector<int>> blocks = {};
    double objective = std::numeric_limits<double>::infinity();
    double excess = std::numeric_limits<double>::infinity();  // of memory
    bool better_than(const Snapshot& other) const;
  };
  struct Removed {
    int item = 0;
    int choice = 0;
    std::vector<int> blocks = {};
  };
  class Random {
   public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}
    int below(int n) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(n)); }
    double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

   private:
    std::mt19937_64 engine_;
  };

  // moves.cc
  int choice_like(int item, const ItemPlacement& placed) const;
  bool is_done() const { return state_.evaluations() >= stop_at_ || is_late(); }
  Snapshot snapshot() const;
  void restore(const Snapshot& s);
  void clear();
  void note_best();
  Removed take_out(int item);
  double place_cheapest(int item, std::span<const int> ranks);
  double place_cheapest_of(int item, std::span<const int> choices, std::span<const int> ranks);

  // start.cc
  std::vector<int> choose(ShardLimit limit) const;
  Allowed allowed_by(ShardLimit limit) const;
  using Nodes = std::vector<std::vector<int>>;  // of each item's blocks; empty: any
  bool is_big(int item) const;
  void change(int item, std::vector<int>& choices, Nodes& nodes);
  void build(const std::vector<int>& choices, const Nodes& nodes, double noise,
             int sharpness = kBuildSharpness);
  std::vector<int> ranks_of(int node) const;
  std::vector<int> hardest_first(const std::vector<int>& choices, double noise);
  std::vector<int> least_ranks() const;

  // descend.cc
  void local_search();
  void repair();
  void shorten_longest(int sharpness);
  std::vector<int> ranks_by_energy() const;
  std::vector<int> partners(const std::vector<int>& ranks, int least, int others);
  bool improve_rank(int rank, const std::vector<int>& others);
  bool divide_anew(int rank, int other);
  bool swap_best(int rank, const std::vector<int>& others);
  bool move_item(int item, std::span<const int> ranks);
  bool spread_less();
  double least_gain() const;

  // anneal.cc
  void cool_down(double hot, std::int64_t until);
  bool accepts(double change, double temperature);
  void anneal_move(double temperature);
  void anneal_choice(int item, double temperature);
  int random_rank();
  void ruin(std::vector<Removed>& removed);
  void recreate(const std::vector<Removed>& removed);

  const PlannerProblem& problem_;
  const PlannerBound& bound_;
  TypeSet types_;
  const Phases phases_;
  SearchState state_;
  Random random_;
  Clock::time_point deadline_;
  std::int64_t stop_at_ = 0;
  Snapshot best_;
  std::vector<int> blocks_, best_blocks_;
};

}  // namespace serrate
