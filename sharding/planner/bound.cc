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

constexpr double kCloseEnough = 0.998;

// No placement is below what it returns, which is `goal` or less; found from so many of the cases
// that are left at most. Cases that are proved not to be below the goal are done with.
double bound_up_to(const Relaxation& relaxation, double goal, int& boxes_left,
                   double part_of_left) {
  constexpr int kRounds = 30;
  // Many demands mean many shards, which come apart better and take long to look through.
  constexpr std::size_t kMostToCut = 1500;
  const bool few = relaxation.num_demands() <= kMostToCut;
  std::priority_queue<Box> open;
  const auto add = [&](Box box, int cuttings) {
    if (!tighten(box, goal, relaxation.least_uniform(box) * (1 - kBoundSlack))) return;
    relaxation.solve(box, goal, kRounds, cuttings);
    if (box.value < goal) open.push(box);
  };
  add(relaxation.whole(), few ? 4 : 0);
  const int stop_at = static_cast<int>((1 - part_of_left) * boxes_left);
  for (; boxes_left > stop_at && !open.empty(); boxes_left -= 2) {
    if (open.top().value > kCloseEnough * goal) break;
    Box below, above;
    if (!cut(open.top(), below, above)) break;
    open.pop();
    add(below, few ? 1 : 0);
    add(above, few ? 1 : 0);
  }
  return (open.empty() ? goal : open.top().value) * (1 - kBoundSlack);
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
  const Relaxation relaxation(problem, objective);
  // Of demands, in all rounds, about 5 ns each. Where memory has a price there are more cases to
  // tell apart.
  const double most_visits = bound.device_price > 0 || bound.host_price > 0 ? 93'000 : 47'000;
  const double num_demands = static_cast<double>(relaxation.num_demands() + 1);
  int boxes_left = std::clamp(static_cast<int>(most_visits / num_demands), 32, 800);
  double proved = bound.objective;
  const auto prove = [&](double part, double part_of_left) {
    const double goal = part * known;
    if (proved < kCloseEnough * goal) {
      proved = std::max(proved, bound_up_to(relaxation, goal, boxes_left, part_of_left));
    }
    return proved >= kCloseEnough * goal;
  };
  // A goal is proved by fewer cases than it takes to find the least of all of them.
  if (prove(0.98, 0.5)) {
    prove(1, 0.7);
    prove(0.99, 1);
  } else {
    for (const double part : {0.965, 0.95, 0.92}) {
      if (prove(part, part > 0.92 ? 0.5 : 1)) break;
    }
  }
  return proved;
}

}  // namespace serrate
