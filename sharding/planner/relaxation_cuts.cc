#include <cmath>
#include <functional>

#include "sharding/planner/relaxation.h"

namespace serrate {

void Relaxation::set_room(const Box& box, Choices& choices) const {
  choices.surely.assign(problem_.items.size(), {});
  for (int k = 0; k < kLoads; ++k) choices.room[k] = k < kPhases ? box.high[k] : 1;
  std::size_t begin = 0;
  for (std::size_t item = 0; item < all_.item_ends.size(); ++item) {
    Loads least;
    least.fill(kUnbounded);
    bool everywhere = true;
    for (std::size_t i = begin; i < all_.item_ends[item] && everywhere; ++i) {
      if (!box.allowed[item][all_.names[i].second]) continue;
      const Candidate& c = problem_.items[item].candidates[all_.names[i].second];
      everywhere = c.ranks_per_block == problem_.world_size;
      const Demand& d = all_.demands[i];
      for (std::size_t p = d.first_part; p < d.end_part; ++p) {
        for (int k = 0; k < kLoads; ++k) least[k] = std::min(least[k], parts_[p].takes[k]);
      }
    }
    begin = all_.item_ends[item];
    if (!everywhere || least[0] == kUnbounded) continue;
    choices.surely[item] = least;
    for (int k = 0; k < kLoads; ++k) choices.room[k] -= least[k];
  }
}

// What a shard takes of the room, by their weights; never more than it does.
double Relaxation::part_of(const Part& part, const Choices& choices, const Loads& weights) const {
  constexpr double kLeastRoom = 1e-4;
  double sum = 0;
  for (int k = 0; k < kLoads; ++k) {
    const double takes = part.takes[k] - choices.surely[part.item][k];
    // Of next to no room the rounding would count.
    if (weights[k] == 0 || takes <= 0 || choices.room[k] < kLeastRoom * part.takes[k]) continue;
    sum += weights[k] * std::min(1.0, takes / choices.room[k]);
  }
  return std::min(sum, 1.0) * (1 - 1e-9);
}

double Relaxation::mean_of(const Demand& d, const Choices& choices, const Cut& cut) const {
  double sum = 0;
  for (std::size_t p = d.first_part; p < d.end_part; ++p) {
    sum += parts_[p].per_rank * cut.function(part_of(parts_[p], choices, cut.weights));
  }
  return sum * scale_;
}

// Adds the cuts that the relaxed solution breaks the most; instead of those that have no price, if
// need be. False when it breaks none.
bool Relaxation::add_cuts(Box& box, Choices& choices) const {
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
  for (const Loads& mix : mixes) {
    sizes.clear();
    parameters.clear();
    for (std::size_t i = 0; i < choices.demands.size(); ++i) {
      if (choices.chosen[i] < 0.01) continue;
      const Demand& d = choices.demands[i];
      for (std::size_t p = d.first_part; p < d.end_part; ++p) {
        const double part = part_of(parts_[p], choices, mix);
        if (part > 0) sizes.emplace_back(part, choices.chosen[i] * parts_[p].per_rank);
      }
    }
    // The few largest parts, and what is left beside them.
    std::sort(sizes.begin(), sizes.end(), std::greater<>());
    for (const auto& [part, count] : sizes) {
      if (part < 0.02 || parameters.size() >= kMostParameters) break;
      const double parameter = part > 0.5 ? (1 - part) * (1 + 1e-6) : part;
      if (parameters.empty() || std::abs(parameters.back() - parameter) > 1e-3) {
        parameters.push_back(parameter);
      }
    }
    Cut best{.weights = mix};
    double most = 1 + kLeastBroken;
    const auto try_function = [&](PackingFunction f) {
      double sum = 0;
      for (const auto& [part, count] : sizes) sum += count * f(part);
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
  }
  std::ranges::stable_sort(broken, [](const auto& a, const auto& b) { return a.first > b.first; });
  std::size_t added = 0;
  for (const auto& [by, cut] : broken) {
    if (added == kMostNew) break;
    if (std::ranges::find(box.cuts, cut) != box.cuts.end()) continue;
    std::size_t at = box.cuts.size();
    if (at == kMostCuts) {
      for (at = 0; at < kMostCuts && box.prices[kLoads + at] > 0; ++at) {
      }
      if (at == kMostCuts) break;
      box.cuts[at] = cut;
    } else {
      box.cuts.push_back(cut);
    }
    box.prices[kLoads + at] = 0;
    for (Demand& d : choices.demands) d.mean[kLoads + at] = mean_of(d, choices, cut);
    ++added;
  }
  return added > 0;
}

}  // namespace serrate
