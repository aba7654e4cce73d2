#include <algorithm>
#include <numeric>

#include "sharding/planner/moves.h"

namespace serrate {
namespace {

constexpr int kTriedRanks = 6;   // of most energy, to improve
constexpr int kMostLeast = 128;  // of least, to put blocks on
constexpr int kDivided = 8;      // pairs with the rank of most energy, to divide anew

}  // namespace

void SearchMoves::descend(std::int64_t evaluations) {
  restore(best_);
  stop_at_ = state_.evaluations() + evaluations;
  local_search();
}

void SearchMoves::local_search() {
  if (state_.memory_excess() > 0) repair();
  for (const int sharpness : {kSearchSharpness, kFinalSharpness}) {
    shorten_longest(sharpness);
    note_best();
  }
}

// Makes placements fit the memory by moves that may cost time, which a sharper energy would not
// allow: what they upset can be evened out again.
void SearchMoves::repair() {
  state_.refresh_energy(kBuildSharpness);
  std::vector<int> ranks(state_.num_ranks());
  std::iota(ranks.begin(), ranks.end(), 0);
  for (bool improved = true; improved && !is_done();) {
    improved = spread_less();
    for (const int rank : ranks) {
      const bool fits = state_.room_with(rank, {}) >= 0;
      if (!fits && improve_rank(rank, partners(ranks, kMostLeast, 64))) improved = true;
    }
  }
  note_best();
}

// Improves ranks of most energy, until the longest ones cannot be.
void SearchMoves::shorten_longest(int sharpness) {
  state_.refresh_energy(sharpness);
  while (!is_done()) {
    const std::vector<int> ranks = ranks_by_energy();
    bool improved = improve_rank(ranks[0], partners(ranks, 24, 8));
    if (!improved) {
      const std::vector<int> others = partners(ranks, kMostLeast, 64);
      for (int i = 0; i < std::min(kTriedRanks, state_.num_ranks()) && !improved; ++i) {
        improved = improve_rank(ranks[i], others);
      }
    }
    for (int i = 0; i < kDivided && !improved; ++i) {
      improved = divide_anew(ranks[0], random_.below(state_.num_ranks()));
    }
    if (!improved && !spread_less()) break;
    state_.refresh_energy(sharpness);
  }
}

// All ranks: first the few of most energy, in order; last, in order as well, those of least.
std::vector<int> SearchMoves::ranks_by_energy() const {
  std::vector<int> ranks(state_.num_ranks());
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto more = [&](int a, int b) {
    return state_.rank_energy(a) != state_.rank_energy(b)
               ? state_.rank_energy(a) > state_.rank_energy(b)
               : a < b;
  };
  const auto first = ranks.begin() + std::min<std::ptrdiff_t>(kTriedRanks, std::ssize(ranks));
  std::partial_sort(ranks.begin(), first, ranks.end(), more);
  const auto last = ranks.end() - std::min<std::ptrdiff_t>(kMostLeast, ranks.end() - first);
  std::nth_element(first, last, ranks.end(), more);
  std::sort(last, ranks.end(), more);
  return ranks;
}

// The ranks that a move looks at: those of least energy and some others.
std::vector<int> SearchMoves::partners(const std::vector<int>& ranks, int least, int others) {
  if (std::ssize(ranks) <= least + others) return ranks;
  std::vector<int> some(ranks.end() - least, ranks.end());
  for (int i = 0; i < others; ++i) {
    some.push_back(ranks[random_.below(static_cast<int>(ranks.size()) - least)]);
  }
  std::sort(some.begin(), some.end());
  some.erase(std::unique(some.begin(), some.end()), some.end());
  return some;
}

double SearchMoves::least_gain() const {
  return 1e-9 * std::max(bound_.objective, 1e-9);
}

// Places an item of the rank anew, or swaps one of its blocks for another rank's.
bool SearchMoves::improve_rank(int rank, const std::vector<int>& others) {
  std::vector<int> items;
  for (const auto& a : state_.on_rank(rank)) items.push_back(a.item);
  for (const auto& a : state_.on_node(rank / problem_.ranks_per_node)) items.push_back(a.item);
  for (const int item : items) {
    if (move_item(item, others)) return true;
  }
  return swap_best(rank, others);
}

// Divides some of the blocks on two ranks between them: what changes places are sets of blocks,
// where no block has one alone that it could change places with.
bool SearchMoves::divide_anew(int rank, int other) {
  constexpr std::size_t kMost = 10;
  if (rank == other) return false;
  std::vector<SearchState::OnRank> blocks;
  const auto add = [&](int from, int to) {
    for (const SearchState::OnRank& on : state_.on_rank(from)) {
      if (state_.may_move(on.item, from, to)) blocks.push_back(on);
    }
  };
  add(rank, other);
  add(other, rank);
  for (std::size_t i = 0; i < std::min(kMost, blocks.size()); ++i) {
    std::swap(blocks[i], blocks[i + random_.below(static_cast<int>(blocks.size() - i))]);
  }
  blocks.resize(std::min(kMost, blocks.size()));
  return state_.divide_anew(rank, other, blocks, least_gain());
}

bool SearchMoves::swap_best(int rank, const std::vector<int>& others) {
  SearchState::OnRank best_a, best_b;
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
          best_a = a;
          best_b = b;
          found = true;
        }
      }
    }
  }
  if (found) state_.swap_blocks(best_a.item, best_a.block, best_b.item, best_b.block);
  return found;
}

// Places an item anew if the energy falls.
bool SearchMoves::move_item(int item, std::span<const int> ranks) {
  const double before = state_.total_energy();
  const Removed old = take_out(item);
  const double removed =
      state_.total_energy() - before - state_.choice_of(item, old.choice).uniform;
  const double placed = place_cheapest(item, ranks);
  if (removed + placed < -least_gain()) return true;
  if (state_.choice(item) >= 0) state_.remove(item);
  state_.place(item, old.choice, old.blocks);
  return false;
}

// Items that are on all ranks may do with fewer.
bool SearchMoves::spread_less() {
  bool changed = false;
  for (int i = 0; i < state_.num_items() && !is_done(); ++i) {
    if (state_.candidate(i, state_.choice(i)).scope != BlockScope::kAll) continue;
    if (phases_.items[i].size() > 1 && move_item(i, {})) changed = true;
  }
  return changed;
}

}  // namespace serrate
