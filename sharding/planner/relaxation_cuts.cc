#include <cmath>
#include <functional>

#include "sharding/planner/relaxation.h"

namespace serrate {

// An item takes of every rank of a group what its least part there does, if each of its demands has
// a part on all of them.
Room Relaxation::room_in(const Box& box) const {
  Room room;
  room.surely.resize(problem_.items.size());
  for (int g = 0; g < num_groups_; ++g) {
    for (int k = 0; k < kLoads; ++k) room.left[g][k] = k < kPhases ? box.high[k] : 1;
  }
  std::size_t begin = 0;
  for (std::size_t item = 0; item < all_.item_ends.size(); ++item) {
    const std::size_t end = all_.item_ends[item];
    for (int g = 0; g < num_groups_; ++g) {
      Loads least;
      least.fill(kUnbounded);
      bool everywhere = true;
      for (std::size_t i = begin; i < end && everywhere; ++i) {
        if (!box.allowed[i]) continue;
        everywhere = is_on_all(all_.demands[i], g);
        for (std::size_t p = all_.demands[i].first_part; p < all_.demands[i].end_part; ++p) {
          if (parts_[p].group != g) continue;
          for (int k = 0; k < kLoads; ++k) least[k] = std::min(least[k], parts_[p].takes[k]);
        }
      }
      if (!everywhere || least[0] == kUnbounded) continue;
      room.surely[item][g] = least;
      for (int k = 0; k < kLoads; ++k) room.left[g][k] -= least[k];
    }
    begin = end;
  }
  return room;
}

// Whether every rank of the group has a shard.
bool Relaxation::is_on_all(const Demand& d, int group) const {
  const Candidate& c = problem_.items[d.item].candidates[d.candidate];
  const int ranks = problem_.world_size / num_groups_;
  if (c.scope == BlockScope::kAll) return true;
  if (c.scope == BlockScope::kFixed) {
    const auto there = std::ranges::count(problem_.items[d.item].ranks, group,
                                          [&](int rank) { return group_of(rank); });
    return there == ranks;
  }
  return d.blocks[group] > 0 && c.ranks_per_block == ranks;
}

// What a shard takes of the room, by their weights; never more than it does.
double Relaxation::part_of(const Part& part, int item, const Room& room,
                           const Loads& weights) const {
  constexpr double kLeastRoom = 1e-4;    // of what the shard takes
  constexpr double kLeastMemory = 1e-6;  // of what a rank has
  const Loads& surely = room.surely[item][part.group];
  const Loads& left = room.left[part.group];
  double sum = 0;
  for (int k = 0; k < kLoads; ++k) {
    const double takes = part.takes[k] - surely[k];
    // Where there is next to no room, rounding would count.
    const double least = std::max(kLeastRoom * part.takes[k], k < kPhases ? 0 : kLeastMemory);
    if (weights[k] == 0 || takes <= 0 || left[k] < least) continue;
    sum += weights[k] * std::min(1.0, takes / left[k]);
  }
  return std::min(sum, 1.0) * (1 - 1e-9);
}

double Relaxation::mean_of(const Demand& d, const Room& room, const Cut& cut) const {
  double sum = 0;
  for (std::size_t p = d.first_part; p < d.end_part; ++p) {
    const Part& part = parts_[p];
    if (part.group != cut.group) continue;
    sum += part.per_rank * cut.function(part_of(part, d.item, room, cut.weights));
  }
  return sum * scale_;
}

// Adds the cuts that the relaxed solution breaks the most; instead of those that have no price, if
// need be. False when it breaks none.
bool Relaxation::add_cuts(Box& box, Choices& choices, const Room& room) const {
  constexpr double kLeastBroken = 1e-3;
  constexpr std::size_t kMostNew = 2, kMostParameters = 24;
  using enum PackingFunction::Kind;
  std::vector<Loads> mixes;
  for (int j = 0; j < kLoads; ++j) {
    if (j < kPhases && !(box.high[j] > 0 && box.high[j] < kUnbounded)) continue;
    mixes.emplace_back()[j] = 1;
    for (int k = 0; k < j; ++k) {
      if (k < kPhases && !(box.high[k] > 0 && box.high[k] < kUnbounded)) continue;
      Loads& mix = mixes.emplace_back();
      mix[j] = mix[k] = 0.5;
    }
  }
  std::vector<std::pair<double, Cut>> broken;
  std::vector<std::pair<double, double>> sizes;  // part, how many a rank
  std::vector<double> parameters;
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < choices.demands.size(); ++i) {
    if (choices.chosen[i] >= 0.01) chosen.push_back(i);
  }
  const auto try_mix = [&](int group, const Loads& mix) {
    sizes.clear();
    parameters.clear();
    for (const std::size_t i : chosen) {
      const Demand& d = choices.demands[i];
      for (std::size_t p = d.first_part; p < d.end_part; ++p) {
        if (parts_[p].group != group) continue;
        const double part = part_of(parts_[p], d.item, room, mix);
        if (part > 0) sizes.emplace_back(part, choices.chosen[i] * parts_[p].per_rank);
      }
    }
    // No part counts more than twice by a function.
    double taken = 0;
    for (const auto& [part, count] : sizes) taken += part * count;
    if (2 * taken <= 1) return;
    // The few largest parts, and what is left beside them.
    std::sort(sizes.begin(), sizes.end(), std::greater<>());
    for (const auto& [part, count] : sizes) {
      if (part < 0.02 || parameters.size() >= kMostParameters) break;
      const double parameter = part > 0.5 ? (1 - part) * (1 + 1e-6) : part;
      if (parameters.empty() || std::abs(parameters.back() - parameter) > 1e-3) {
        parameters.push_back(parameter);
      }
    }
    Cut best{.group = group, .weights = mix};
    double most = 1 + kLeastBroken;
    const auto try_function = [&](PackingFunction f) {
      double sum = 0;
      for (const auto& [part, count] : sizes) {
        const double counts = f(part);
        if (counts == 0) break;  // nor do smaller ones
        sum += count * counts;
      }
      if (sum > most) {
        most = sum;
        best.function = f;
      }
    };
    for (int k = 1; k <= 6; ++k) try_function({kCommonParts, static_cast<double>(k)});
    for (const double p : parameters) {
      if (!(p > 0 && p <= 0.5)) continue;
      try_function({kThreshold, p});
      try_function({kRest, p});
      if (1 / p - std::floor(1 / p) < 0.99) try_function({kSteps, p});
    }
    if (most > 1 + kLeastBroken) broken.emplace_back(most, best);
  };
  for (int group = 0; group < num_groups_; ++group) {
    for (const Loads& mix : mixes) try_mix(group, mix);
  }
  std::ranges::stable_sort(broken, [](const auto& a, const auto& b) { return a.first > b.first; });
  const std::size_t first = rows_.size();
  std::size_t added = 0;
  for (const auto& [by, cut] : broken) {
    if (added == kMostNew) break;
    if (std::ranges::find(box.cuts, cut) != box.cuts.end()) continue;
    std::size_t at = box.cuts.size();
    if (at == kMostCuts) {
      for (at = 0; at < kMostCuts && box.prices[first + at] > 0; ++at) {
      }
      if (at == kMostCuts) break;
      box.cuts[at] = cut;
    } else {
      box.cuts.push_back(cut);
    }
    box.prices[first + at] = 0;
    for (Demand& d : choices.demands) d.mean[first + at] = mean_of(d, room, cut);
    ++added;
  }
  return added > 0;
}

}  // namespace serrate
