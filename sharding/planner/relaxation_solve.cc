#include <cmath>

#include "sharding/planner/relaxation.h"

namespace serrate {

void Relaxation::solve(Box& box, double known, int rounds, int cuttings) const {
  if (!take_out(box, known)) return;
  Choices choices = choices_in(box);
  raise(box, choices, known, rounds);
  for (int i = 0; i < cuttings && box.value < known; ++i) {
    const bool fewer = known < kUnbounded && price_out(box, choices, known);
    if (fewer) {
      if (!take_out(box, known)) return;
      choices = choices_in(box);
    }
    if (!add_cuts(box, choices) && !fewer) break;
    raise(box, choices, known, rounds);
  }
  if (box.value < known) find_torn(box, choices);
}

Relaxation::Solution Relaxation::solution(const Rows& prices, int num_rows, const Choices& choices,
                                          std::vector<std::size_t>* chosen_demands) {
  Solution sum;
  std::size_t i = 0;
  if (chosen_demands) chosen_demands->clear();
  for (const std::size_t end : choices.item_ends) {
    double least = kUnbounded;
    const Demand* chosen = nullptr;
    for (; i < end; ++i) {
      const Demand& d = choices.demands[i];
      double cost = d.uniform;
      for (int j = 0; j < num_rows; ++j) cost += prices[j] * d.mean[j];
      if (cost < least) {
        least = cost;
        chosen = &d;
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

void Relaxation::raise(Box& box, Choices& choices, double known, int rounds) const {
  const int num_rows = box.num_rows();
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
  for (int j = 0; j < num_rows; ++j) excess[j] = mean[j] - supply(box, box.prices, best, j);
  double step = 0.5;
  int failures = 0;
  for (int round = 0; round < rounds && best_value < known; ++round) {
    double square = 0;
    for (int j = 0; j < num_rows; ++j) {
      if (box.prices[j] > 0 || excess[j] > 0) square += excess[j] * excess[j];
    }
    if (square < 1e-16 * scale_ * scale_) break;
    const double goal = std::min(1.01 * known, best_value + 0.1 * scale_);
    const double length = step * (goal - best_value) / square;
    Rows prices = box.prices;
    for (int j = 0; j < num_rows; ++j) {
      prices[j] = std::max(0.0, prices[j] + length * excess[j]);
      const bool passes_one = (prices[j] - 1) * (box.prices[j] - 1) < 0;
      if (j < kPhases && (passes_one || (prices[j] > 1 && box.high[j] == kUnbounded)))
        prices[j] = 1;
    }
    const Solution s = solution(prices, num_rows, choices, &chosen);
    const double v = value(box, prices, s);
    constexpr double kNewPart = 0.15;
    double along = 0;
    for (int j = 0; j < num_rows; ++j) {
      const double now = s.mean[j] - supply(box, prices, s, j);
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
      if (along > 0) step = std::min(2.0, 1.3 * step);
    } else if (++failures == 3) {
      step *= 0.66;
      failures = 0;
    }
  }
  box.proved = best_value;
  box.value = std::max(box.value, best_value);
  box.longest = best.longest;
  for (int k = 0; k < kPhases; ++k) box.slowest[k] = std::clamp(mean[k], box.low[k], box.high[k]);
}

void Relaxation::find_torn(Box& box, const Choices& choices) const {
  box.torn = 0;
  box.torn_item = -1;
  int torn_row = 0;
  double torn_mean = 0;
  std::size_t begin = 0, torn_begin = 0, torn_end = 0;
  for (const std::size_t end : choices.item_ends) {
    for (int j = 0; j < box.num_rows(); ++j) {
      if (box.prices[j] == 0) continue;
      double mean = 0, spread = 0;
      for (std::size_t i = begin; i < end; ++i) {
        mean += choices.chosen[i] * choices.demands[i].mean[j];
      }
      for (std::size_t i = begin; i < end; ++i) {
        spread += choices.chosen[i] * std::abs(choices.demands[i].mean[j] - mean);
      }
      if (box.prices[j] * spread <= box.torn) continue;
      box.torn = box.prices[j] * spread;
      torn_row = j;
      torn_mean = mean;
      torn_begin = begin;
      torn_end = end;
    }
    begin = end;
  }
  if (box.torn == 0) return;
  box.torn_item = choices.names[torn_begin].first;
  box.takes_much.assign(box.allowed[box.torn_item].size(), false);
  for (std::size_t i = torn_begin; i < torn_end; ++i) {
    box.takes_much[choices.names[i].second] = choices.demands[i].mean[torn_row] > torn_mean;
  }
}

}  // namespace serrate
