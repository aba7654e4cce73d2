#include <algorithm>
#include <numeric>

#include "sharding/planner/searcher.h"

namespace serrate {

void Searcher::start(std::span<const ShardLimit> limits) {
  for (const ShardLimit limit : limits) {
    build(choose(limit), 0);
    note_best();
    if (is_late()) return;
  }
}

void Searcher::restart(std::span<const ShardLimit> limits, std::int64_t evaluations) {
  constexpr double kNoise = 0.2;
  const auto num_limits = static_cast<std::int64_t>(limits.size());
  const std::int64_t end = state_.evaluations() + evaluations;
  for (std::int64_t i = 0; state_.evaluations() < end && !is_late(); ++i) {
    build(choose(limits[i % num_limits]), i < num_limits ? 0 : kNoise);
    stop_at_ = std::min(end, state_.evaluations() + evaluations / num_limits);
    local_search();
  }
}

// For each item its cheapest choice at the bound's prices, of those whose shards keep to the limit;
// the one of the shortest shards if there is none.
std::vector<int> Searcher::choose(ShardLimit limit) const {
  std::vector<int> chosen;
  for (int i = 0; i < state_.num_items(); ++i) {
    const auto& choices = phases_.items[i];
    int best = -1;
    double best_cost = std::numeric_limits<double>::infinity();
    int shortest = 0;
    for (int c = 0; c < std::ssize(choices); ++c) {
      if (choices[c].longest < choices[shortest].longest) shortest = c;
      if (choices[c].longest > limit * bound_.objective) continue;
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

// Places the items, each where it costs the least; one that would exceed a rank's memory may take
// another choice.
void Searcher::build(const std::vector<int>& choices, double noise) {
  constexpr int kPlacedPerLook = 8;  // items, before the emptiest ranks are looked for again
  clear();
  std::vector<double> targets(phases_.num_phases, 0.0);
  for (int i = 0; i < state_.num_items(); ++i) {
    const Phases::Choice& choice = state_.choice_of(i, choices[i]);
    const Candidate& c = state_.candidate(i, choices[i]);
    for (std::size_t k = 0; k < choice.time.size(); ++k) {
      targets[k] += choice.time[k] * c.num_blocks * c.ranks_per_block / state_.num_ranks();
    }
  }
  state_.set_targets(targets, kBuildSharpness);
  // The penalty for memory is far beyond any time.
  constexpr double kTooMuch = 20;
  std::vector<int> blocks, some;
  int placed = 0;
  for (const int i : hardest_first(choices, noise)) {
    if (placed++ % kPlacedPerLook == 0) some = least_ranks();
    double energy = state_.cheapest_blocks(i, choices[i], some, blocks);
    if (energy > kTooMuch * bound_.objective) {
      energy = state_.cheapest_blocks(i, choices[i], {}, blocks);
    }
    if (energy > kTooMuch * (state_.choice_of(i, choices[i]).work + bound_.objective)) {
      place_cheapest(i, {});
    } else {
      state_.place(i, choices[i], blocks);
    }
  }
}

// Those on nodes, then those that take the largest part of a rank's time or memory.
std::vector<int> Searcher::hardest_first(const std::vector<int>& choices, double noise) {
  double memory = 1;
  for (const std::int64_t bytes : problem_.device_bytes) memory += static_cast<double>(bytes);
  for (const std::int64_t bytes : problem_.host_bytes) memory += static_cast<double>(bytes);
  std::vector<std::pair<double, int>> order;
  for (int i = 0; i < state_.num_items(); ++i) {
    const Candidate& c = state_.candidate(i, choices[i]);
    const double bytes = static_cast<double>(c.max_device_bytes() + c.max_host_bytes());
    const double part =
        std::max(state_.choice_of(i, choices[i]).longest / std::max(bound_.objective, 1e-12),
                 bytes * state_.num_ranks() / memory);
    const double wide = c.scope == BlockScope::kRank ? 0 : 1e6;
    order.emplace_back(-(part * (1 + noise * random_.uniform()) + wide), i);
  }
  std::sort(order.begin(), order.end());
  std::vector<int> items;
  for (const auto& [key, item] : order) items.push_back(item);
  return items;
}

// A few ranks of least energy; none, for all, when there are not many.
std::vector<int> Searcher::least_ranks() const {
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

}  // namespace serrate
