#include <algorithm>
#include <limits>
#include <numeric>

#include "sharding/planner/moves.h"

namespace serrate {

void SearchMoves::start(std::span<const ShardLimit> limits) {
  for (const ShardLimit& limit : limits) {
    build(choose(limit), {}, 0);
    note_best();
    if (is_late()) return;
  }
}

void SearchMoves::start(std::span<const ItemChoice> choices) {
  std::vector<int> chosen;
  Nodes nodes;
  for (int i = 0; i < std::ssize(choices); ++i) {
    chosen.push_back(choice_like(i, {choices[i].candidate, {}}));
    if (chosen.back() < 0) return;
    nodes.push_back(choices[i].nodes);
  }
  build(chosen, nodes, 0);
  note_best();
}

void SearchMoves::start_by_class(std::span<const NodeClasses> classes, std::int64_t evaluations) {
  constexpr double kHot = 0.2;
  for (const NodeClasses& of_nodes : classes) {
    if (is_late()) return;
    std::vector<int> choices;
    Nodes nodes;
    for (const auto [choice, node] : choose_by_class(problem_, phases_, bound_, of_nodes)) {
      choices.push_back(choice);
      nodes.push_back(node < 0 ? std::vector<int>{} : std::vector<int>{node});
    }
    build(choices, nodes, 0, kAnnealSharpness);
    note_best();
    stop_at_ = state_.evaluations() + evaluations / 2;
    local_search();
    stop_at_ = state_.evaluations() + evaluations / 2;
    cool_down(kHot, stop_at_ - evaluations / 8);
    local_search();
  }
}

void SearchMoves::restart(std::span<const ShardLimit> limits, std::int64_t evaluations) {
  constexpr double kNoise = 0.2;
  const auto num_limits = static_cast<std::int64_t>(limits.size());
  const std::int64_t end = state_.evaluations() + evaluations;
  for (std::int64_t i = 0; state_.evaluations() < end && !is_late(); ++i) {
    const ShardLimit& limit = limits[i % num_limits];
    build(choose(limit), {}, i < num_limits ? 0 : kNoise);
    stop_at_ = std::min(end, state_.evaluations() + evaluations / num_limits);
    local_search();
  }
}

void SearchMoves::restart_nearby(std::int64_t evaluations) {
  constexpr int kMostChanged = 3;
  constexpr double kNoise = 0.1;
  constexpr std::int64_t kEach = 3'000;  // evaluations
  const std::int64_t end = state_.evaluations() + evaluations;
  while (state_.evaluations() < end && !is_late()) {
    std::vector<int> choices = best_.choices;
    std::vector<int> big;
    Nodes nodes(choices.size());
    for (int i = 0; i < state_.num_items(); ++i) {
      if (state_.candidate(i, choices[i]).scope == BlockScope::kNode) nodes[i] = best_.blocks[i];
      if (is_big(i)) big.push_back(i);
    }
    if (big.empty()) return;
    for (int n = 1 + random_.below(kMostChanged); n > 0; --n) {
      change(big[random_.below(static_cast<int>(big.size()))], choices, nodes);
    }
    build(choices, nodes, kNoise);
    note_best();
    stop_at_ = std::min(end, state_.evaluations() + kEach);
    local_search();
  }
}

// Whether its shards, in the best placement, take a tenth of the time or of a rank's memory, or
// more ranks than one each.
bool SearchMoves::is_big(int item) const {
  constexpr double kPart = 0.1;
  const int choice = best_.choices[item];
  const Candidate& c = state_.candidate(item, choice);
  const auto is_part = [](std::int64_t bytes, const std::vector<std::int64_t>& has) {
    return static_cast<double>(bytes) > kPart * static_cast<double>(*std::ranges::max_element(has));
  };
  return c.scope != BlockScope::kRank ||
         state_.choice_of(item, choice).longest > kPart * best_.objective ||
         is_part(c.max_device_bytes(), problem_.device_bytes) ||
         is_part(c.max_host_bytes(), problem_.host_bytes);
}

// To other nodes, or to another choice with which a better placement is possible.
void SearchMoves::change(int item, std::vector<int>& choices, Nodes& nodes) {
  std::vector<int> others;
  if (!nodes[item].empty() && random_.below(2) == 0) {
    const bool is_one = nodes[item].size() == 1;
    for (int node = 0; node < state_.num_nodes(); ++node) {
      const bool is_there = is_one && node == nodes[item].front();
      if (!is_there && state_.may_be_on_node(item, node)) others.push_back(node);
    }
    if (others.empty()) return;
    for (int& node : nodes[item]) node = others[random_.below(static_cast<int>(others.size()))];
    return;
  }
  const auto& all = phases_.items[item];
  for (int c = 0; c < std::ssize(all); ++c) {
    const double least = all[c].uniform + (all[c].time.empty() ? 0 : all[c].longest);
    const bool may_gain = best_.excess > 0 || least < best_.objective;
    if (c != choices[item] && may_gain) others.push_back(c);
  }
  if (others.empty()) return;
  choices[item] = others[random_.below(static_cast<int>(others.size()))];
  nodes[item].clear();
}

// For each item its cheapest choice, of those whose shards keep to the limits and, where
// memory has a price, fit beside what the others then have to be; the one of the shortest shards if
// there is none. Memory has the bound's price, or as much more as it takes for all choices to fit
// together.
std::vector<int> SearchMoves::choose(ShardLimit limit) const {
  constexpr int kMostRaises = 40;
  constexpr double kRaise = 1.25;
  struct Option {
    int choice;
    double work, device, host;  // ms, bytes; summed over all ranks
  };
  const Allowed allowed = allowed_by(limit);
  std::vector<std::vector<Option>> options;
  for (int i = 0; i < state_.num_items(); ++i) {
    auto& of_item = options.emplace_back();
    for (int c = 0; c < std::ssize(phases_.items[i]); ++c) {
      const Phases::Choice& choice = state_.choice_of(i, c);
      const Candidate& candidate = state_.candidate(i, c);
      if (!allowed[i][choice.candidate]) continue;
      of_item.push_back({c, choice.work, static_cast<double>(candidate.total_device_bytes()),
                         static_cast<double>(candidate.total_host_bytes())});
    }
  }
  const double device = sum_of(problem_.device_bytes), host = sum_of(problem_.host_bytes);
  // Where memory has no price yet, a thousandth of the time is the first for all of it.
  const auto first_price = [&](double bytes) {
    return 1e-3 * bound_.objective / std::max(bytes, 1.0);
  };
  double device_price = bound_.device_price, host_price = bound_.host_price;
  std::vector<int> chosen;
  for (int i = 0; i < kMostRaises; ++i) {
    chosen.clear();
    double used_device = 0, used_host = 0;
    for (const auto& of_item : options) {
      const Option& best = *std::ranges::min_element(of_item, {}, [&](const Option& o) {
        return o.work + state_.num_ranks() * (device_price * o.device + host_price * o.host);
      });
      chosen.push_back(best.choice);
      used_device += best.device;
      used_host += best.host;
    }
    const bool device_fits = used_device <= limit.filled * device;
    const bool host_fits = used_host <= limit.filled * host;
    if (device_fits && host_fits) break;
    if (!device_fits) device_price = kRaise * std::max(device_price, first_price(device));
    if (!host_fits) host_price = kRaise * std::max(host_price, first_price(host));
  }
  return chosen;
}

Allowed SearchMoves::allowed_by(ShardLimit limit) const {
  const auto part_of = [&](const std::vector<std::int64_t>& bytes) {
    return limit.memory * static_cast<double>(*std::ranges::max_element(bytes));
  };
  const double most_time = limit.time * bound_.objective;
  const double most_device = part_of(problem_.device_bytes);
  const double most_host = part_of(problem_.host_bytes);
  Allowed allowed;
  for (int i = 0; i < state_.num_items(); ++i) {
    const auto& choices = phases_.items[i];
    auto& of_item = allowed.emplace_back(problem_.items[i].candidates.size());
    bool any = false;
    for (int c = 0; c < std::ssize(choices); ++c) {
      const Candidate& candidate = state_.candidate(i, c);
      if (choices[c].longest > most_time ||
          static_cast<double>(candidate.max_device_bytes()) > most_device ||
          static_cast<double>(candidate.max_host_bytes()) > most_host) {
        continue;
      }
      of_item[choices[c].candidate] = true;
      any = true;
    }
    if (any) continue;
    of_item[std::ranges::min_element(choices, {}, &Phases::Choice::longest)->candidate] = true;
  }
  // Without a price, memory is no reason to choose what fits, which is left to the moves.
  if (bound_.device_price == 0 && bound_.host_price == 0) return allowed;
  Allowed fitting = allowed;
  return take_out_misfits(problem_, fitting) ? allowed : fitting;
}

// Places the items, each where it costs the least; one that would exceed a rank's memory may take
// another choice. Nodes are kept to by blocks on nodes, and, where they fit there, by blocks on
// ranks that are all on one node; those of a table on several nodes, and of a
// table_column_wise one, which chooses its node itself, go where they cost the least.
void SearchMoves::build(const std::vector<int>& choices, const Nodes& nodes, double noise,
                        int sharpness) {
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
  state_.set_targets(targets, sharpness);
  // The penalty for memory is far beyond any time.
  constexpr double kTooMuch = 20;
  std::vector<int> blocks, some;
  int placed = 0;
  for (const int i : hardest_first(choices, noise)) {
    if (placed++ % kPlacedPerLook == 0) some = least_ranks();
    const BlockScope scope = state_.candidate(i, choices[i]).scope;
    const auto in = nodes.empty() ? std::span<const int>{} : std::span<const int>(nodes[i]);
    if (scope == BlockScope::kNode && !in.empty()) {
      state_.place(i, choices[i], in);
      continue;
    }
    const bool in_one = !in.empty() && in.front() == in.back();
    const std::vector<int> of_node = in_one ? ranks_of(in.front()) : std::vector<int>{};
    double energy = state_.cheapest_blocks(i, choices[i], in_one ? of_node : some, blocks);
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
std::vector<int> SearchMoves::hardest_first(const std::vector<int>& choices, double noise) {
  double memory = 1;
  for (const std::int64_t bytes : problem_.device_bytes) memory += static_cast<double>(bytes);
  for (const std::int64_t bytes : problem_.host_bytes) memory += static_cast<double>(bytes);
  std::vector<std::pair<double, int>> order;
  for (int i = 0; i < state_.num_items(); ++i) {
    const Candidate& c = state_.candidate(i, choices[i]);
    const double bytes = static_cast<double>(c.max_device_bytes() + c.max_host_bytes());
    const double part =
        std::max(state_.choice_of(i, choices[i]).total / std::max(bound_.objective, 1e-12),
                 bytes * state_.num_ranks() / memory);
    const double wide = c.scope == BlockScope::kRank ? 0 : 1e6;
    order.emplace_back(-(part * (1 + noise * random_.uniform()) + wide), i);
  }
  std::sort(order.begin(), order.end());
  std::vector<int> items;
  for (const auto& [key, item] : order) items.push_back(item);
  return items;
}

std::vector<int> SearchMoves::ranks_of(int node) const {
  std::vector<int> ranks(problem_.ranks_per_node);
  std::iota(ranks.begin(), ranks.end(), node * problem_.ranks_per_node);
  return ranks;
}

// A few ranks of least energy; none, for all, when there are not many.
std::vector<int> SearchMoves::least_ranks() const {
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
