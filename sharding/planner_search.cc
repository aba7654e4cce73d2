#include "sharding/planner_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <random>

#include "sharding/planner_state.h"

namespace serrate {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Items placed before a start looks for the emptiest ranks again.
constexpr int kPlacedPerLook = 8;

// Sharpness of the energy, as powers of 2: rough to build, sharp to finish.
constexpr int kBuildSharpness = 3;
constexpr int kAnnealSharpness = 4;
constexpr int kSearchSharpness = 5;
constexpr int kFinalSharpness = 8;

// Of the parts of max_rank that one shard may take in a start.
constexpr double kShardLimits[] = {1.0, 0.75, 0.55, 0.4, 0.3};

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  int below(int n) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(n)); }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 engine_;
};

// A search over one restriction of the candidates.
class Searcher {
 public:
  Searcher(const PlannerProblem& problem, const PlannerBound& bound, const PlannerOptions& options,
           const TypeSet& types, Clock::time_point deadline)
      : problem_(problem),
        bound_(bound),
        phases_(make_phases(problem, options.objective, types)),
        state_(problem, phases_),
        random_(options.seed),
        deadline_(deadline) {}

  // The best of some greedy starts, as they are.
  void start() {
    for (const double limit : kShardLimits) {
      build(choose(limit), 0);
      note_best();
      if (is_late()) break;
    }
  }

  // Local search from the best so far.
  void descend(std::int64_t budget) {
    restore(best_);
    stop_at_ = state_.evaluations() + budget;
    local_search();
  }

  // Local search from greedy starts and variations of them.
  void restart(std::int64_t budget) {
    constexpr int kNumLimits = 3;
    constexpr double kNoise = 0.2;
    stop_at_ = state_.evaluations() + budget;
    for (int i = 0; !is_done(); ++i) {
      build(choose(kShardLimits[i % kNumLimits]), i < kNumLimits ? 0 : kNoise);
      local_search();
    }
  }

  // Annealing and local search from the best so far: once to loosen it a little, once to melt it.
  void anneal(std::int64_t budget) {
    for (const double hot : {0.2, 1.0}) {
      restore(best_);
      stop_at_ = state_.evaluations() + budget / 2;
      cool_down(hot, stop_at_ - budget / 8);
      local_search();
    }
  }

  // Metropolis moves, cooling down to a fiftieth of `hot` until so many evaluations are done.
  // Temperatures are in parts of a rank's mean energy.
  void cool_down(double hot, std::int64_t until) {
    constexpr int kEpochs = 60;
    constexpr double kCooling = 0.02;
    const std::int64_t begin = state_.evaluations();
    for (int epoch = 0; epoch < kEpochs && !is_late(); ++epoch) {
      const double progress = static_cast<double>(epoch) / kEpochs;
      state_.refresh_energy(progress < 0.5 ? kAnnealSharpness : kAnnealSharpness + 1);
      const double temperature =
          total_energy() / state_.num_ranks() * hot * std::pow(kCooling, progress);
      const auto end = begin + static_cast<std::int64_t>(static_cast<double>(until - begin) *
                                                         (progress + 1.0 / kEpochs));
      while (state_.evaluations() < end) anneal_move(temperature);
    }
  }

  bool accepts(double change, double temperature) {
    return change < 0 || random_.uniform() < std::exp(-change / temperature);
  }

  void anneal_move(double temperature) {
    const int item = random_.below(state_.num_items());
    const int choice = state_.choice(item);
    const Candidate& c = state_.candidate(item, choice);
    const int kind = random_.below(16);
    if (kind == 0 || c.scope != BlockScope::kRank) {
      if (kind < 4) anneal_choice(item, temperature);
      return;
    }
    const int block = random_.below(c.num_blocks);
    const int from = state_.blocks(item)[block];
    const int to = random_.below(state_.num_ranks());
    if (to == from) return;
    const auto& there = state_.on_rank(to);
    // One of the other rank's blocks, or none, comes back.
    const int back = random_.below(static_cast<int>(there.size()) + 1);
    if (back == std::ssize(there)) {
      if (accepts(state_.move_change(item, block, to), temperature)) {
        state_.move_block(item, block, to);
      }
      return;
    }
    const SearchState::OnRank b = there[back];
    if (b.item == item) return;
    if (accepts(state_.swap_change(item, block, b.item, b.block), temperature)) {
      state_.swap_blocks(item, block, b.item, b.block);
    }
  }

  // A random choice for an item, on the best of a few random ranks.
  void anneal_choice(int item, double temperature) {
    const int old_choice = state_.choice(item);
    const int choice = random_.below(static_cast<int>(phases_.items[item].size()));
    const std::vector<int> old_blocks(state_.blocks(item).begin(), state_.blocks(item).end());
    std::vector<int> ranks;
    for (int i = 0; i < std::min(8, state_.num_ranks()); ++i) {
      ranks.push_back(random_.below(state_.num_ranks()));
    }
    const double before = total_energy();
    state_.remove(item);
    double change = total_energy() - before - state_.choice_of(item, old_choice).uniform;
    change += state_.cheapest_blocks(item, choice, ranks, blocks_);
    if (accepts(change, temperature)) {
      state_.place(item, choice, blocks_);
    } else {
      state_.place(item, old_choice, old_blocks);
    }
  }

  int num_phases() const { return phases_.num_phases; }
  double objective() const { return best_.objective; }
  bool within_memory() const { return best_.excess <= 0; }
  bool better_than(const Searcher& other) const { return best_.better_than(other.best_); }
  SearchResult result() {
    restore(best_);
    return {state_.placement(), best_.objective, state_.within_memory()};
  }

 private:
  struct Snapshot {
    std::vector<int> choices = {};
    std::vector<std::vector<int>> blocks = {};
    double objective = kInfinity;
    double excess = kInfinity;

    bool better_than(const Snapshot& other) const {
      if (excess > 0 || other.excess > 0) {
        if (excess != other.excess) return excess < other.excess;
      }
      return objective < other.objective;
    }
  };

  bool is_late() const { return Clock::now() >= deadline_; }
  bool is_done() { return state_.evaluations() >= stop_at_ || is_late(); }

  Snapshot snapshot() const {
    Snapshot s{.objective = state_.objective(), .excess = state_.memory_excess()};
    for (int i = 0; i < state_.num_items(); ++i) {
      s.choices.push_back(state_.choice(i));
      s.blocks.emplace_back(state_.blocks(i).begin(), state_.blocks(i).end());
    }
    return s;
  }
  void restore(const Snapshot& s) {
    clear();
    for (int i = 0; i < state_.num_items(); ++i) state_.place(i, s.choices[i], s.blocks[i]);
  }
  void clear() {
    for (int i = 0; i < state_.num_items(); ++i) {
      if (state_.choice(i) >= 0) state_.remove(i);
    }
  }
  void note_best() {
    const double objective = state_.objective();
    if (best_.excess <= 0 && objective >= best_.objective) return;
    const double excess = state_.memory_excess();
    if (excess > best_.excess || (excess == best_.excess && objective >= best_.objective)) return;
    best_ = snapshot();
  }

  // For each item its cheapest choice at the bound's prices, of those whose shards take no more
  // than `limit` of max_rank; the one of the shortest shards if there is none.
  std::vector<int> choose(double limit) const {
    std::vector<int> chosen;
    for (int i = 0; i < state_.num_items(); ++i) {
      const auto& choices = phases_.items[i];
      int best = -1;
      double best_cost = kInfinity;
      int shortest = 0;
      for (int c = 0; c < std::ssize(choices); ++c) {
        if (choices[c].longest < choices[shortest].longest) shortest = c;
        if (choices[c].longest > limit * bound_.max_rank) continue;
        const Candidate& candidate = state_.candidate(i, c);
        const double cost =
            choices[c].work +
            bound_.device_price * static_cast<double>(candidate.total_device_bytes()) +
            bound_.host_price * static_cast<double>(candidate.total_host_bytes());
        if (cost < best_cost) {
          best_cost = cost;
          best = c;
        }
      }
      chosen.push_back(best >= 0 ? best : shortest);
    }
    return chosen;
  }

  // Places the items, those that are hardest to place first, each where it costs the least; one
  // that would exceed a rank's memory may take another choice.
  void build(const std::vector<int>& choices, double noise) {
    clear();
    std::vector<double> targets(phases_.num_phases, 0.0);
    std::vector<std::pair<double, int>> order;
    double memory = 0;
    for (const std::int64_t bytes : problem_.device_bytes) memory += static_cast<double>(bytes);
    for (const std::int64_t bytes : problem_.host_bytes) memory += static_cast<double>(bytes);
    for (int i = 0; i < state_.num_items(); ++i) {
      const Phases::Choice& choice = state_.choice_of(i, choices[i]);
      const Candidate& c = state_.candidate(i, choices[i]);
      for (std::size_t k = 0; k < choice.time.size(); ++k) {
        targets[k] += choice.time[k] * c.num_blocks * c.ranks_per_block / state_.num_ranks();
      }
      const double bytes = static_cast<double>(c.max_device_bytes() + c.max_host_bytes());
      const double part = std::max(choice.longest / std::max(bound_.max_rank, 1e-12),
                                   bytes * state_.num_ranks() / std::max(memory, 1.0));
      const double wide = c.scope == BlockScope::kRank ? 0 : 1e6;  // nodes first
      order.emplace_back(-(part * (1 + noise * random_.uniform()) + wide), i);
    }
    std::sort(order.begin(), order.end());
    state_.set_targets(targets, kBuildSharpness);
    std::vector<int> blocks, some;
    int placed = 0;
    for (const auto& [key, i] : order) {
      if (placed++ % kPlacedPerLook == 0) some = least_ranks();
      double energy = state_.cheapest_blocks(i, choices[i], some, blocks);
      if (energy > 20 * bound_.max_rank) {
        energy = state_.cheapest_blocks(i, choices[i], {}, blocks);
      }
      const double plain = state_.choice_of(i, choices[i]).work;
      // The penalty for memory is far beyond any time.
      if (energy > 20 * (plain + bound_.max_rank)) {
        place_cheapest(i, {});
      } else {
        state_.place(i, choices[i], blocks);
      }
    }
  }

  // A few ranks of least energy; none, for all, when there are not many.
  std::vector<int> least_ranks() const {
    constexpr int kMany = 160, kFew = 48;
    if (state_.num_ranks() <= kMany) return {};
    std::vector<int> ranks(state_.num_ranks());
    std::iota(ranks.begin(), ranks.end(), 0);
    std::nth_element(ranks.begin(), ranks.begin() + kFew, ranks.end(), [&](int a, int b) {
      return state_.rank_energy(a) != state_.rank_energy(b)
                 ? state_.rank_energy(a) < state_.rank_energy(b)
                 : a < b;
    });
    ranks.resize(kFew);
    std::sort(ranks.begin(), ranks.end());
    return ranks;
  }

  // Places an item by its choice of the least energy. Returns that, infinite when it has no place.
  double place_cheapest(int item, std::span<const int> ranks) {
    double best = kInfinity;
    int best_choice = -1;
    for (int c = 0; c < std::ssize(phases_.items[item]); ++c) {
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

  double total_energy() const {
    double sum = 0;
    for (int r = 0; r < state_.num_ranks(); ++r) sum += state_.rank_energy(r);
    return sum;
  }

  // Ranks from the one of most energy.
  std::vector<int> by_energy() const {
    std::vector<int> ranks(state_.num_ranks());
    std::iota(ranks.begin(), ranks.end(), 0);
    std::sort(ranks.begin(), ranks.end(), [&](int a, int b) {
      return state_.rank_energy(a) != state_.rank_energy(b)
                 ? state_.rank_energy(a) > state_.rank_energy(b)
                 : a < b;
    });
    return ranks;
  }

  // The ranks that a move looks at first: those of least energy and some others.
  std::vector<int> partners(const std::vector<int>& ranks, int least, int others) {
    if (std::ssize(ranks) <= least + others) return ranks;
    std::vector<int> some(ranks.end() - least, ranks.end());
    for (int i = 0; i < others; ++i) {
      some.push_back(ranks[random_.below(static_cast<int>(ranks.size()) - least)]);
    }
    std::sort(some.begin(), some.end());
    some.erase(std::unique(some.begin(), some.end()), some.end());
    return some;
  }

  // Shortens the ranks of most energy, until the longest ones cannot be.
  void local_search() {
    for (const int sharpness : {kSearchSharpness, kFinalSharpness}) {
      shorten_longest(sharpness);
      note_best();
    }
  }

  void shorten_longest(int sharpness) {
    constexpr int kTriedRanks = 6;
    state_.refresh_energy(sharpness);
    while (!is_done()) {
      const std::vector<int> ranks = by_energy();
      bool improved = improve_rank(ranks[0], partners(ranks, 24, 8), true);
      if (!improved) {
        const std::vector<int> others = partners(ranks, 128, 64);
        for (int i = 0; i < std::min(kTriedRanks, state_.num_ranks()) && !improved; ++i) {
          improved = improve_rank(ranks[i], others, true);
        }
      }
      if (!improved && !spread_less()) break;
      state_.refresh_energy(sharpness);
    }
  }

  double least_gain() const { return 1e-9 * std::max(bound_.max_rank, 1e-9); }

  // The best move of one block on `rank`: to another rank, against a block there, or its item to
  // another choice.
  bool improve_rank(int rank, const std::vector<int>& others, bool with_nodes) {
    struct Swap {
      SearchState::OnRank a, b;
    } best_swap;
    double best = -least_gain();
    bool found = false;
    for (const SearchState::OnRank& a : state_.on_rank(rank)) {
      for (const int other : others) {
        if (other == rank) continue;
        for (const SearchState::OnRank& b : state_.on_rank(other)) {
          if (a.item == b.item) continue;
          const double change = state_.swap_change(a.item, a.block, b.item, b.block);
          if (change < best) {
            best = change;
            best_swap = {a, b};
            found = true;
          }
        }
      }
    }
    std::vector<int> items;
    for (const SearchState::OnRank& a : state_.on_rank(rank)) items.push_back(a.item);
    if (with_nodes) {
      for (const auto& a : state_.on_node(rank / problem_.ranks_per_node)) items.push_back(a.item);
    }
    for (const int item : items) {
      if (move_item(item, others, best)) return true;
    }
    if (found) {
      state_.swap_blocks(best_swap.a.item, best_swap.a.block, best_swap.b.item, best_swap.b.block);
    }
    return found;
  }

  // Places an item anew if the energy falls by more than -`least`.
  bool move_item(int item, std::span<const int> ranks, double least) {
    const int choice = state_.choice(item);
    const std::vector<int> blocks(state_.blocks(item).begin(), state_.blocks(item).end());
    const double before = total_energy();
    state_.remove(item);
    const double removed = total_energy() - before - state_.choice_of(item, choice).uniform;
    const double placed = place_cheapest(item, ranks);
    if (removed + placed < least) return true;
    if (state_.choice(item) >= 0) state_.remove(item);
    state_.place(item, choice, blocks);
    return false;
  }

  // Items that are on all ranks may do with fewer.
  bool spread_less() {
    bool changed = false;
    for (int i = 0; i < state_.num_items() && !is_done(); ++i) {
      if (state_.candidate(i, state_.choice(i)).scope != BlockScope::kAll) continue;
      if (phases_.items[i].size() > 1 && move_item(i, {}, -least_gain())) changed = true;
    }
    return changed;
  }

  const PlannerProblem& problem_;
  const PlannerBound& bound_;
  const Phases phases_;
  SearchState state_;
  Random random_;
  Clock::time_point deadline_;
  std::int64_t stop_at_ = 0;
  Snapshot best_;
  std::vector<int> blocks_, best_blocks_;
};

std::vector<TypeSet> type_sets(PlannerObjective objective) {
  using enum ShardingType;
  const TypeSet all = {kDataParallel, kTableWise,       kRowWise, kColumnWise,
                       kTableRowWise, kTableColumnWise, kGrid};
  if (objective == PlannerObjective::kMaxRank) return {all};
  // Each sharding type that is mixed in waits for its own slowest rank.
  return {{kDataParallel, kRowWise, kColumnWise},
          {kDataParallel, kRowWise, kTableWise},
          {kDataParallel, kRowWise, kColumnWise, kTableRowWise},
          {kDataParallel, kRowWise, kTableWise, kTableRowWise},
          {kDataParallel, kRowWise, kTableRowWise},
          {kDataParallel, kRowWise, kGrid},
          all};
}

}  // namespace

SearchResult search_placement(const PlannerProblem& problem, const PlannerBound& bound,
                              const PlannerOptions& options) {
  const auto deadline = Clock::now() + options.time_limit;
  const std::int64_t num_items = std::ssize(problem.items);
  const std::int64_t budget = 1'000'000 + std::max<std::int64_t>(0, num_items - 500) * 8'000;
  const std::vector<TypeSet> sets = type_sets(options.objective);
  std::unique_ptr<Searcher> best;
  for (const TypeSet& types : sets) {
    auto searcher = std::make_unique<Searcher>(problem, bound, options, types, deadline);
    searcher->start();
    if (sets.size() > 1) searcher->descend(budget / 24);
    if (!best || searcher->better_than(*best)) best = std::move(searcher);
    if (Clock::now() >= deadline) break;
  }
  best->descend(budget / 4);
  // Loads of one phase are best balanced from many starts; of several, by annealing.
  const std::int64_t restarts = best->num_phases() == 1 ? budget * 3 / 4 : budget / 8;
  best->restart(restarts);
  best->anneal(budget - restarts);
  return best->result();
}

}  // namespace serrate
