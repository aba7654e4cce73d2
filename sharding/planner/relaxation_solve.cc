#include <cmath>

#include "sharding/planner/relaxation.h"

namespace serrate {
namespace {

constexpr double kOne = 1e-12;  // sums of prices are 1 but for rounding

}  // namespace

void Relaxation::solve(Box& box, double known, int rounds, int cuttings) const {
  if (!take_out(box, known)) return;
  Room room = room_in(box);
  Choices choices = choices_in(box, room);
  raise(box, choices, known, rounds);
  for (int i = 0; i < cuttings && box.value < known; ++i) {
    const bool fewer = known < kUnbounded && price_out(box, choices, known);
    if (fewer) {
      if (!take_out(box, known)) return;
      room = room_in(box);
      choices = choices_in(box, room);
    }
    if (!add_cuts(box, choices, room) && !fewer) break;
    raise(box, choices, known, rounds);
  }
  if (box.value >= known) return;
  find_torn(box, choices);
  round(box, choices);
}

void Choices::transpose_means(int num_rows) {
  const std::size_t num_demands = demands.size();
  means.resize(num_rows * num_demands);
  for (std::size_t i = 0; i < num_demands; ++i) {
    for (int j = 0; j < num_rows; ++j) means[j * num_demands + i] = demands[i].mean[j];
  }
}

// Row by row, in loops over demands that compile to vector instructions.
std::vector<double> Choices::costs(const Rows& prices, int num_rows) const {
  std::vector<double> sums;
  sums.reserve(demands.size());
  for (const Demand& d : demands) sums.push_back(d.uniform);
  for (int j = 0; j < num_rows; ++j) {
    const double price = prices[j];
    if (price == 0) continue;
    const double* mean = &means[j * demands.size()];
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += price * mean[i];
  }
  return sums;
}

Relaxation::Solution Relaxation::solution(const Rows& prices, int num_rows, const Choices& choices,
                                          std::vector<std::size_t>* chosen_demands) {
  Solution sum;
  std::size_t i = 0;
  if (chosen_demands) chosen_demands->clear();
  const std::vector<double> costs = choices.costs(prices, num_rows);
  for (const std::size_t end : choices.item_ends) {
    double least = kUnbounded;
    const Demand* chosen = nullptr;
    for (; i < end; ++i) {
      if (costs[i] < least) {
        least = costs[i];
        chosen = &choices.demands[i];
      }
    }
    if (!chosen) return {.cost = kUnbounded};
    sum.cost += least;
    for (int j = 0; j < num_rows; ++j) sum.mean[j] += chosen->mean[j];
    for (int k = 0; k < kPhases; ++k) {
      sum.longest[k] = std::max(sum.longest[k], chosen->longest[k]);
    }
    if (chosen_demands) chosen_demands->push_back(chosen - choices.demands.data());
  }
  return sum;
}

double Relaxation::mean_time(const Demand& d) const {
  double sum = 0;
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    if (rows_[j].load < kPhases) sum += d.mean[j];
  }
  return d.uniform + sum / num_groups_;
}

// What the groups' rows of each phase cost together.
PhaseSums Relaxation::phase_prices(const Rows& prices) const {
  PhaseSums sums{};
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    if (rows_[j].load < kPhases) sums[rows_[j].load] += prices[j];
  }
  return sums;
}

// What each row has at the prices: of a phase, the time of the slowest rank that is cheapest.
Rows Relaxation::supply(const Box& box, const Rows& prices, const Solution& s) const {
  const PhaseSums sums = phase_prices(prices);
  PhaseSums slowest{};
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    if (rows_[j].load < kPhases) slowest[rows_[j].load] += prices[j] * s.mean[j];
  }
  for (int k = 0; k < kPhases; ++k) {
    slowest[k] = sums[k] < 1 - kOne   ? box.low[k]
                 : sums[k] > 1 + kOne ? box.high[k]
                                      : std::clamp(slowest[k], box.low[k], box.high[k]);
  }
  Rows has{};
  for (int j = 0; j < num_rows(box); ++j) {
    const bool is_phase = j < std::ssize(rows_) && rows_[j].load < kPhases;
    has[j] = is_phase ? slowest[rows_[j].load] : scale_;
  }
  return has;
}

double Relaxation::value(const Box& box, const Rows& prices, const Solution& s) const {
  double sum = s.cost;
  const PhaseSums sums = phase_prices(prices);
  for (int k = 0; k < kPhases; ++k) {
    if (sums[k] < 1) sum += (1 - sums[k]) * box.low[k];
    if (sums[k] > 1) sum += (1 - sums[k]) * box.high[k];
  }
  for (int j = 0; j < num_rows(box); ++j) {
    if (j >= std::ssize(rows_) || rows_[j].load >= kPhases) sum -= prices[j] * scale_;
  }
  return sum;
}

// New prices along what the rows lack. Those of a phase stop where they come to 1 together, at
// which its slowest rank may take any time; from there they go on either way.
Rows Relaxation::step(const Box& box, const Rows& excess, double length) const {
  Rows prices = box.prices;
  for (int j = 0; j < num_rows(box); ++j) {
    prices[j] = std::max(0.0, prices[j] + length * excess[j]);
  }
  const PhaseSums before = phase_prices(box.prices), after = phase_prices(prices);
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    const int k = rows_[j].load;
    if (k >= kPhases) continue;
    const bool passes_one = std::abs(before[k] - 1) > kOne && (after[k] - 1) * (before[k] - 1) < 0;
    if (passes_one || (after[k] > 1 && box.high[k] == kUnbounded)) {
      // Never above 1 by rounding.
      prices[j] = (1 - 1e-15) * (after[k] > 0 ? prices[j] / after[k] : 1.0 / num_groups_);
    }
  }
  return prices;
}

void Relaxation::raise(Box& box, Choices& choices, double known, int rounds) const {
  const int num_rows = this->num_rows(box);
  choices.transpose_means(num_rows);
  std::vector<std::size_t> chosen;
  // At price 0 of all rows, the value is the sum of the lows.
  Solution best = solution({}, num_rows, choices, &chosen);
  double best_value = value(box, {}, best);
  const Solution priced = solution(box.prices, num_rows, choices, &chosen);
  if (value(box, box.prices, priced) >= best_value) {
    best = priced;
    best_value = value(box, box.prices, priced);
  } else {
    box.prices = {};
    solution({}, num_rows, choices, &chosen);
  }
  if (best.cost == kUnbounded) {
    box.value = kUnbounded;
    return;
  }
  std::ranges::fill(choices.chosen, 0.0);
  for (const std::size_t i : chosen) choices.chosen[i] = 1;
  Rows mean = best.mean, excess{};
  const Rows first_supply = supply(box, box.prices, best);
  for (int j = 0; j < num_rows; ++j) excess[j] = mean[j] - first_supply[j];
  double pace = 0.5;
  int failures = 0;
  for (int round = 0; round < rounds && best_value < known; ++round) {
    double square = 0;
    for (int j = 0; j < num_rows; ++j) {
      if (box.prices[j] > 0 || excess[j] > 0) square += excess[j] * excess[j];
    }
    if (square < 1e-16 * scale_ * scale_) break;
    const double goal = std::min(1.01 * known, best_value + 0.1 * scale_);
    const double length = pace * (goal - best_value) / square;
    const Rows prices = step(box, excess, length);
    const Solution s = solution(prices, num_rows, choices, &chosen);
    const double v = value(box, prices, s);
    constexpr double kNewPart = 0.15;
    const Rows has = supply(box, prices, s);
    double along = 0;
    for (int j = 0; j < num_rows; ++j) {
      const double now = s.mean[j] - has[j];
      along += now * excess[j];
      excess[j] += kNewPart * (now - excess[j]);
      mean[j] += kNewPart * (s.mean[j] - mean[j]);
    }
    for (double& part : choices.chosen) part *= 1 - kNewPart;
    for (const std::size_t i : chosen) choices.chosen[i] += kNewPart;
    if (v > best_value + 1e-9 * scale_) {
      best_value = v;
      best = s;
      box.prices = prices;
      failures = 0;
      if (along > 0) pace = std::min(2.0, 1.3 * pace);
    } else if (++failures == 3) {
      pace *= 0.66;
      failures = 0;
    }
  }
  box.proved = best_value;
  box.value = std::max(box.value, best_value);
  box.longest = best.longest;
  box.slowest = {};
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    const int k = rows_[j].load;
    if (k < kPhases) box.slowest[k] = std::max(box.slowest[k], mean[j]);
  }
  for (int k = 0; k < kPhases; ++k) {
    box.slowest[k] = std::clamp(box.slowest[k], box.low[k], box.high[k]);
  }
}

void Relaxation::find_torn(Box& box, const Choices& choices) const {
  constexpr double kLeastTorn = 1e-4;
  double most_torn = 0;
  box.torn_little.clear();
  box.torn_much.clear();
  int torn_row = 0;
  double torn_mean = 0;
  std::size_t begin = 0, torn_begin = 0, torn_end = 0;
  for (const std::size_t end : choices.item_ends) {
    for (int j = 0; j < num_rows(box); ++j) {
      if (box.prices[j] == 0) continue;
      double mean = 0, spread = 0;
      for (std::size_t i = begin; i < end; ++i) {
        mean += choices.chosen[i] * choices.demands[i].mean[j];
      }
      for (std::size_t i = begin; i < end; ++i) {
        spread += choices.chosen[i] * std::abs(choices.demands[i].mean[j] - mean);
      }
      if (box.prices[j] * spread <= most_torn) continue;
      most_torn = box.prices[j] * spread;
      torn_row = j;
      torn_mean = mean;
      torn_begin = begin;
      torn_end = end;
    }
    begin = end;
  }
  if (most_torn < kLeastTorn * box.value) return tell_apart(box, choices);
  for (std::size_t i = torn_begin; i < torn_end; ++i) {
    auto& side = choices.demands[i].mean[torn_row] > torn_mean ? box.torn_much : box.torn_little;
    side.push_back(choices.names[i]);
  }
}

// Where the relaxed solution is whole, the shards do not fit together: of the items that have more
// than one demand left, the one that takes the most is to have the demand that it has, or not.
void Relaxation::tell_apart(Box& box, const Choices& choices) const {
  double most = 0;
  std::size_t begin = 0, most_begin = 0, most_end = 0, most_at = 0;
  for (const std::size_t end : choices.item_ends) {
    const auto chosen =
        std::max_element(choices.chosen.begin() + static_cast<std::ptrdiff_t>(begin),
                         choices.chosen.begin() + static_cast<std::ptrdiff_t>(end));
    const auto at = static_cast<std::size_t>(chosen - choices.chosen.begin());
    const double cost = mean_time(choices.demands[at]);
    if (end - begin > 1 && cost > most) {
      most = cost;
      most_begin = begin;
      most_end = end;
      most_at = at;
    }
    begin = end;
  }
  for (std::size_t i = most_begin; i < most_end; ++i) {
    (i == most_at ? box.torn_much : box.torn_little).push_back(choices.names[i]);
  }
}

void Relaxation::round(Box& box, const Choices& choices) const {
  box.rounded.clear();
  std::size_t i = 0;
  for (const std::size_t end : choices.item_ends) {
    std::size_t most = i;
    for (; i < end; ++i) {
      if (choices.chosen[i] > choices.chosen[most]) most = i;
    }
    box.rounded.push_back(choices.names[most]);
  }
}

}  // namespace serrate
