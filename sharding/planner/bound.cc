#include "sharding/planner/bound.h"

#include <algorithm>
#include <numeric>
#include <queue>

#include "sharding/planner/relaxation.h"

namespace serrate {
namespace {

double sum_of(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0.0);
}

// Cuts a box in two where a phase of the relaxed solution has shards that are longer than its
// slowest rank takes; or where the slowest rank may take the most beyond that. False when no phase
// may by much.
bool cut(const Box& box, Box& below, Box& above) {
  int phase = -1;
  double most = 1e-3 * box.value;
  for (int k = 0; k < kPhases; ++k) {
    if (box.longest[k] - box.slowest[k] > most) {
      most = box.longest[k] - box.slowest[k];
      phase = k;
    }
  }
  if (phase < 0 && box.torn > 1e-4 * box.value) {
    below = above = box;
    for (std::size_t c = 0; c < box.takes_much.size(); ++c) {
      auto& without = box.takes_much[c] ? below : above;
      without.allowed[box.torn_item][c] = false;
    }
    return true;
  }
  double at = phase < 0 ? 0 : box.slowest[phase] + most / 2;
  if (phase < 0) {
    for (int k = 0; k < kPhases; ++k) {
      if (box.high[k] < kUnbounded && box.high[k] - box.slowest[k] > most) {
        most = box.high[k] - box.slowest[k];
        phase = k;
      }
    }
    if (phase < 0) return false;
    at = box.slowest[phase] + 0.4 * most;
  }
  below = above = box;
  below.high[phase] = above.low[phase] = at;
  return true;
}

// Lowers the highs to what is left of `known` beside `uniform`. False when there is nothing left.
bool tighten(Box& box, double known, double uniform) {
  const double low = std::accumulate(box.low.begin(), box.low.end(), uniform);
  for (int k = 0; k < kPhases; ++k) {
    box.high[k] = std::min(box.high[k], known - (low - box.low[k]));
    if (box.high[k] < box.low[k]) return false;
  }
  return true;
}

}  // namespace

PlannerBound planner_bound(const PlannerProblem& problem, PlannerObjective objective) {
  constexpr int kRounds = 100;
  const Relaxation relaxation(problem, objective);
  Box box = relaxation.whole();
  relaxation.solve(box, kUnbounded, kRounds, 0);
  const auto price = [&](int row, const std::vector<std::int64_t>& bytes) {
    return box.prices[row] * relaxation.scale() / std::max(sum_of(bytes), 1.0);
  };
  return {.objective = box.value * (1 - kBoundSlack),
          .device_price = price(kPhases, problem.device_bytes),
          .host_price = price(kPhases + 1, problem.host_bytes)};
}

double raise_bound(const PlannerProblem& problem, PlannerObjective objective,
                   const PlannerBound& bound, double known) {
  constexpr int kRounds = 30;
  // Of demands, about 5 ns each. Where memory has a price there are more cases to tell apart.
  const double most_visits = bound.device_price > 0 || bound.host_price > 0 ? 1.4e6 : 7e5;
  constexpr double kCloseEnough = 0.998;
  // Many demands mean many shards, which come apart better and take long to look through.
  constexpr std::size_t kMostToCut = 1500;
  const Relaxation relaxation(problem, objective);
  const int most_boxes = std::clamp(
      static_cast<int>(most_visits / kRounds / static_cast<double>(relaxation.num_demands() + 1)),
      16, 400);
  const bool few = relaxation.num_demands() <= kMostToCut;
  std::priority_queue<Box> open;
  const auto add = [&](Box box, int cuttings) {
    if (!tighten(box, known, relaxation.least_uniform(box) * (1 - kBoundSlack))) return;
    relaxation.solve(box, known, kRounds, cuttings);
    if (box.value < known) open.push(box);
  };
  add(relaxation.whole(), few ? 4 : 0);
  for (int boxes = 0; boxes < most_boxes && !open.empty(); boxes += 2) {
    if (open.top().value > kCloseEnough * known) break;
    Box below, above;
    if (!cut(open.top(), below, above)) break;
    open.pop();
    add(below, few ? 1 : 0);
    add(above, few ? 1 : 0);
  }
  const double least = open.empty() ? known : open.top().value;
  return std::max(bound.objective, least * (1 - kBoundSlack));
}

}  // namespace serrate
