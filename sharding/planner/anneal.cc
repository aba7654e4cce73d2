#include <algorithm>
#include <cmath>

#include "sharding/planner/moves.h"

namespace serrate {

void SearchMoves::anneal(std::int64_t evaluations) {
  for (const double hot : {0.2, 1.0}) {
    restore(best_);
    stop_at_ = state_.evaluations() + evaluations / 2;
    cool_down(hot, stop_at_ - evaluations / 8);
    local_search();
  }
}

// Metropolis moves, cooling down to a fiftieth of `hot` until so many evaluations are done.
// Temperatures are in parts of a rank's mean energy.
void SearchMoves::cool_down(double hot, std::int64_t until) {
  constexpr int kEpochs = 60;
  constexpr double kCooling = 0.02;
  const std::int64_t begin = state_.evaluations();
  for (int epoch = 0; epoch < kEpochs && !is_late(); ++epoch) {
    const double progress = static_cast<double>(epoch) / kEpochs;
    state_.refresh_energy(progress < 0.5 ? kAnnealSharpness : kAnnealSharpness + 1);
    const double temperature =
        state_.total_energy() / state_.num_ranks() * hot * std::pow(kCooling, progress);
    const auto end = begin + static_cast<std::int64_t>(static_cast<double>(until - begin) *
                                                       (progress + 1.0 / kEpochs));
    while (state_.evaluations() < end) anneal_move(temperature);
  }
}

bool SearchMoves::accepts(double change, double temperature) {
  return change < 0 || random_.uniform() < std::exp(-change / temperature);
}

void SearchMoves::anneal_move(double temperature) {
  const int item = random_.below(state_.num_items());
  const Candidate& c = state_.candidate(item, state_.choice(item));
  const int kind = random_.below(16);
  if (kind == 0 || c.scope != BlockScope::kRank) {
    if (kind < 4) anneal_choice(item, temperature);
    return;
  }
  const int block = random_.below(c.num_blocks);
  const int to = random_.below(state_.num_ranks());
  if (to == state_.blocks(item)[block]) return anneal_choice(item, temperature);
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
void SearchMoves::anneal_choice(int item, double temperature) {
  const int choice = random_.below(static_cast<int>(phases_.items[item].size()));
  std::vector<int> ranks;
  for (int i = 0; i < std::min(8, state_.num_ranks()); ++i) {
    ranks.push_back(random_.below(state_.num_ranks()));
  }
  const double before = state_.total_energy();
  const Removed old = take_out(item);
  double change = state_.total_energy() - before - state_.choice_of(item, old.choice).uniform;
  change += state_.cheapest_blocks(item, choice, ranks, blocks_);
  if (accepts(change, temperature)) {
    state_.place(item, choice, blocks_);
  } else {
    state_.place(item, old.choice, old.blocks);
  }
}

void SearchMoves::ruin_and_recreate(std::int64_t evaluations) {
  constexpr double kMostWorse = 0.02;  // of the objective, to be accepted, at the beginning
  constexpr int kRoundsPerRefresh = 4;
  constexpr double kDivided = 0.3;  // of all rounds
  constexpr double kFirstPrice = 5, kLeastPrice = 0.1, kMostPrice = 100, kPriceStep = 1.2;
  restore(best_);
  const std::int64_t begin = state_.evaluations();
  stop_at_ = begin + evaluations;
  double price = kFirstPrice;
  const auto cost = [&](double objective, double excess) {
    return objective * (1 + price * excess);
  };
  double objective = state_.objective();
  double excess = state_.memory_excess();
  std::vector<Removed> removed;
  int rounds_beyond = 0;  // the memory
  for (int round = 0; !is_done(); ++round) {
    if (round % kRoundsPerRefresh == 0) {
      if (round > 0) {
        price *= rounds_beyond > kRoundsPerRefresh / 2 ? kPriceStep : 1 / kPriceStep;
        price = std::clamp(price, kLeastPrice, kMostPrice);
      }
      rounds_beyond = 0;
      state_.set_memory_price({price, 0});
      state_.refresh_energy(kSearchSharpness);
    }
    if (random_.uniform() < kDivided) {
      const int rank = random_rank();
      if (divide_anew(rank, random_.below(state_.num_ranks()))) {
        note_best();
        objective = state_.objective();
        excess = state_.memory_excess();
      }
      if (excess > 0) ++rounds_beyond;
      continue;
    }
    const double left =
        1 - static_cast<double>(state_.evaluations() - begin) / static_cast<double>(evaluations);
    ruin(removed);
    recreate(removed);
    note_best();
    const double new_objective = state_.objective();
    const double new_excess = state_.memory_excess();
    const double most = cost(objective, excess) * (1 + kMostWorse * left * random_.uniform());
    if (cost(new_objective, new_excess) <= most) {
      objective = new_objective;
      excess = new_excess;
    } else {
      for (const Removed& r : removed) state_.remove(r.item);
      for (const Removed& r : removed) state_.place(r.item, r.choice, r.blocks);
    }
    if (excess > 0) ++rounds_beyond;
  }
  state_.set_memory_price({});
}

// The one of most energy more often than not.
int SearchMoves::random_rank() {
  int rank = random_.below(state_.num_ranks());
  if (random_.below(2) == 0) {
    for (int r = 0; r < state_.num_ranks(); ++r) {
      if (state_.rank_energy(r) > state_.rank_energy(rank)) rank = r;
    }
  }
  return rank;
}

// Takes out some items of a rank and some others.
void SearchMoves::ruin(std::vector<Removed>& removed) {
  removed.clear();
  const int rank = random_rank();
  constexpr int kMost = 8;
  const int count = 1 + random_.below(std::min(kMost, state_.num_items()));
  while (std::ssize(removed) < count) {
    const auto& on = state_.on_rank(rank);
    const int item = !on.empty() && random_.below(2) == 0
                         ? on[random_.below(static_cast<int>(on.size()))].item
                         : random_.below(state_.num_items());
    if (state_.choice(item) >= 0) removed.push_back(take_out(item));
  }
}

void SearchMoves::recreate(const std::vector<Removed>& removed) {
  constexpr int kLeftOut = 8;  // one in so many
  std::vector<int> items, ranks, choices;
  for (const Removed& r : removed) items.push_back(r.item);
  for (std::size_t i = items.size(); i > 1; --i) {
    std::swap(items[i - 1], items[random_.below(static_cast<int>(i))]);
  }
  for (const int item : items) {
    ranks.clear();
    choices.clear();
    for (int r = 0; r < state_.num_ranks(); ++r) {
      if (random_.below(kLeftOut) != 0) ranks.push_back(r);
    }
    for (int c = 0; c < std::ssize(phases_.items[item]); ++c) {
      if (random_.below(kLeftOut) != 0) choices.push_back(c);
    }
    if (place_cheapest_of(item, choices, ranks) == std::numeric_limits<double>::infinity()) {
      place_cheapest(item, {});
    }
  }
}

}  // namespace serrate
