#include "sharding/planner/bound.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>

namespace serrate {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Sums of many doubles are compared with this slack, to the side on which the bound stays true.
constexpr double kSlack = 1e-10;

double sum_of(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0.0);
}

// What a placement takes is at least the sum of the slowest ranks' times of these phases, and of
// the time that all ranks spend alike. max_rank is one phase. Of the critical path, phases that
// wait for each other are taken together where that loses little: compute of both directions; the
// exchanges of shards that are on a rank alone, and of the others.
constexpr int kPhases = 3;
constexpr int kRows = kPhases + 2;  // and memory of the devices and hosts, as ms
using Phases = std::array<double, kPhases>;
using Rows = std::array<double, kRows>;

// What a candidate takes: ms on every rank, ms of its longest shard in each phase, and the mean
// over ranks of each row.
struct Demand {
  double uniform = 0;
  Phases longest = {};
  Rows mean = {};
};

Phases phases_of(const Candidate& c, const ShardEstimate& e, PlannerEstimator estimator,
                 PlannerObjective objective) {
  if (objective == PlannerObjective::kMaxRank) return {e.total(estimator)};
  const PhaseTimes times = phase_times(estimator, c.type, e);
  const double exchange = std::accumulate(times.begin() + 2, times.end(), 0.0);
  // TorchRec's model has the exchanges of each sharding type one after another.
  const bool apart = estimator == PlannerEstimator::kTorchRec && c.scope != BlockScope::kRank;
  return {times[0] + times[1], apart ? 0 : exchange, apart ? exchange : 0};
}

// Each item has those from the end of the item before on.
struct Choices {
  std::vector<Demand> demands = {};
  std::vector<std::size_t> item_ends = {};
};

// The slowest rank of phase k takes between low and high.
struct Box {
  Phases low = {};
  Phases high = {};
  // Found by solve: the best prices of the rows, and what they prove.
  Rows prices = {1, 1, 1};
  double value = 0;
  Phases slowest = {};  // in the relaxed solution
  Phases longest = {};  // of its shards

  friend bool operator<(const Box& a, const Box& b) { return a.value > b.value; }
};

// Each item's choice of a candidate is relaxed: loads and memory have to keep to the limits only as
// means over the ranks. Every price of the rows (Lagrange) then proves a bound.
class Relaxation {
 public:
  Relaxation(const PlannerProblem& problem, PlannerObjective objective) {
    const std::int64_t most_device = *std::ranges::max_element(problem.device_bytes);
    const std::int64_t most_host = *std::ranges::max_element(problem.host_bytes);
    const double device = std::max(sum_of(problem.device_bytes), 1.0);
    const double host = std::max(sum_of(problem.host_bytes), 1.0);
    for (const PlannerItem& item : problem.items) {
      for (const Candidate& c : item.candidates) {
        if (c.max_device_bytes() > most_device || c.max_host_bytes() > most_host) continue;
        Demand d = demand_of(c, problem, objective);
        d.mean[kPhases] = static_cast<double>(c.total_device_bytes()) / device;
        d.mean[kPhases + 1] = static_cast<double>(c.total_host_bytes()) / host;
        all_.demands.push_back(d);
      }
      all_.item_ends.push_back(all_.demands.size());
    }
    // In ms, for memory to weigh about what time does.
    scale_ = std::max(solution({1, 1, 1}, all_).cost, 1e-12);
    for (Demand& d : all_.demands) {
      for (int j = kPhases; j < kRows; ++j) d.mean[j] *= scale_;
    }
  }

  double scale() const { return scale_; }
  std::size_t num_demands() const { return all_.demands.size(); }

  // Raises box.value, up to `known`, by the volume algorithm (Barahona and Anbil 2000), which
  // steps along a running mean of the solutions.
  void solve(Box& box, double known, int rounds) const;

 private:
  struct Solution {
    double cost = 0;  // at the prices, without what the rows have
    Rows mean = {};
    Phases longest = {};
  };

  // Without its memory.
  static Demand demand_of(const Candidate& c, const PlannerProblem& problem,
                          PlannerObjective objective) {
    Demand d{.uniform = c.everywhere.total(problem.estimator)};
    const Phases longest = phases_of(c, c.time, problem.estimator, objective);
    if (c.scope == BlockScope::kAll && c.full_ranks == problem.world_size) {
      d.uniform += std::accumulate(longest.begin(), longest.end(), 0.0);
    } else {
      const Phases work = phases_of(c, c.work, problem.estimator, objective);
      d.longest = longest;
      for (int k = 0; k < kPhases; ++k) d.mean[k] = work[k] / problem.world_size;
    }
    return d;
  }

  // The cheapest demand of each item.
  static Solution solution(const Rows& prices, const Choices& choices) {
    Solution sum;
    std::size_t i = 0;
    for (const std::size_t end : choices.item_ends) {
      double least = kInfinity;
      const Demand* chosen = nullptr;
      for (; i < end; ++i) {
        const Demand& d = choices.demands[i];
        double cost = d.uniform;
        for (int j = 0; j < kRows; ++j) cost += prices[j] * d.mean[j];
        if (cost < least) {
          least = cost;
          chosen = &d;
        }
      }
      if (!chosen) return {.cost = kInfinity};
      sum.cost += least;
      for (int j = 0; j < kRows; ++j) sum.mean[j] += chosen->mean[j];
      for (int k = 0; k < kPhases; ++k) {
        sum.longest[k] = std::max(sum.longest[k], chosen->longest[k]);
      }
    }
    return sum;
  }

  // What row j has at the prices: for a phase the time of the slowest rank that is cheapest.
  double supply(const Box& box, const Rows& prices, const Solution& s, int j) const {
    if (j >= kPhases) return scale_;
    if (prices[j] < 1) return box.low[j];
    if (prices[j] > 1) return box.high[j];
    return std::clamp(s.mean[j], box.low[j], box.high[j]);
  }
  double value(const Box& box, const Rows& prices, const Solution& s) const {
    double sum = s.cost;
    for (int j = 0; j < kRows; ++j) {
      const double worth = (j < kPhases ? 1 : 0) - prices[j];
      if (worth != 0) sum += worth * supply(box, prices, s, j);
    }
    return sum;
  }

  Choices choices_in(const Box& box) const;

  Choices all_;
  double scale_ = 1;
};

// Those whose shards are not longer than the slowest rank of a phase may be.
Choices Relaxation::choices_in(const Box& box) const {
  Choices some;
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    for (; i < end; ++i) {
      const Demand& d = all_.demands[i];
      bool fits = true;
      for (int k = 0; k < kPhases; ++k) fits &= d.longest[k] <= box.high[k] * (1 + kSlack);
      if (fits) some.demands.push_back(d);
    }
    some.item_ends.push_back(some.demands.size());
  }
  return some;
}

void Relaxation::solve(Box& box, double known, int rounds) const {
  const Choices choices = choices_in(box);
  // At price 0 of all rows, the value is the sum of the lows.
  Solution best = solution(box.prices, choices);
  double best_value = value(box, box.prices, best);
  const Solution idle = solution({}, choices);
  if (value(box, {}, idle) > best_value) {
    box.prices = {};
    best = idle;
    best_value = value(box, {}, idle);
  }
  Rows mean = best.mean, excess{};
  for (int j = 0; j < kRows; ++j) excess[j] = mean[j] - supply(box, box.prices, best, j);
  double step = 0.5;
  int failures = 0;
  for (int round = 0; round < rounds && best_value < known; ++round) {
    double square = 0;
    for (int j = 0; j < kRows; ++j) {
      if (box.prices[j] > 0 || excess[j] > 0) square += excess[j] * excess[j];
    }
    if (square < 1e-16 * scale_ * scale_) break;
    const double goal = std::min(1.01 * known, best_value + 0.1 * scale_);
    const double length = step * (goal - best_value) / square;
    Rows prices = box.prices;
    for (int j = 0; j < kRows; ++j) {
      prices[j] = std::max(0.0, prices[j] + length * excess[j]);
      const bool passes_one = (prices[j] - 1) * (box.prices[j] - 1) < 0;
      if (j < kPhases && (passes_one || (prices[j] > 1 && box.high[j] == kInfinity))) prices[j] = 1;
    }
    const Solution s = solution(prices, choices);
    const double v = value(box, prices, s);
    constexpr double kNewPart = 0.15;
    double along = 0;
    for (int j = 0; j < kRows; ++j) {
      const double now = s.mean[j] - supply(box, prices, s, j);
      along += now * excess[j];
      excess[j] += kNewPart * (now - excess[j]);
      mean[j] += kNewPart * (s.mean[j] - mean[j]);
    }
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
  box.value = std::max(box.value, best_value);
  box.longest = best.longest;
  for (int k = 0; k < kPhases; ++k) box.slowest[k] = std::clamp(mean[k], box.low[k], box.high[k]);
}

// Cuts a box in two where a phase of the relaxed solution has shards that are longer than its
// slowest rank takes. False when no phase has by much.
bool cut(const Box& box, Box& below, Box& above) {
  int phase = -1;
  double most = 1e-3 * box.value;
  for (int k = 0; k < kPhases; ++k) {
    if (box.longest[k] - box.slowest[k] > most) {
      most = box.longest[k] - box.slowest[k];
      phase = k;
    }
  }
  if (phase < 0) return false;
  below = above = box;
  below.high[phase] = above.low[phase] = box.slowest[phase] + most / 2;
  return true;
}

// Lowers the highs to what is left of `known`. False when there is nothing left.
bool tighten(Box& box, double known) {
  const double low = std::accumulate(box.low.begin(), box.low.end(), 0.0);
  for (int k = 0; k < kPhases; ++k) {
    box.high[k] = std::min(box.high[k], known - (low - box.low[k]));
    if (box.high[k] < box.low[k]) return false;
  }
  return true;
}

Box whole() {
  Box box;
  box.high.fill(kInfinity);
  return box;
}

}  // namespace

PlannerBound planner_bound(const PlannerProblem& problem, PlannerObjective objective) {
  constexpr int kRounds = 100;
  const Relaxation relaxation(problem, objective);
  Box box = whole();
  relaxation.solve(box, kInfinity, kRounds);
  const auto price = [&](int row, const std::vector<std::int64_t>& bytes) {
    return box.prices[row] * relaxation.scale() / std::max(sum_of(bytes), 1.0);
  };
  return {.objective = box.value * (1 - kSlack),
          .device_price = price(kPhases, problem.device_bytes),
          .host_price = price(kPhases + 1, problem.host_bytes)};
}

double raise_bound(const PlannerProblem& problem, PlannerObjective objective,
                   const PlannerBound& bound, double known) {
  constexpr int kRounds = 30;
  constexpr double kMostVisits = 2e6;  // of demands, about 3 ns each
  const Relaxation relaxation(problem, objective);
  const int most_boxes = std::clamp(
      static_cast<int>(kMostVisits / kRounds / static_cast<double>(relaxation.num_demands() + 1)),
      16, 400);
  std::priority_queue<Box> open;
  double least = known;  // of the boxes that are not looked into any more
  const auto add = [&](Box box) {
    if (!tighten(box, known)) return;
    relaxation.solve(box, known, kRounds);
    if (box.value < known) open.push(box);
  };
  add(whole());
  for (int boxes = 0; boxes < most_boxes && !open.empty(); boxes += 2) {
    Box below, above;
    if (!cut(open.top(), below, above)) break;
    open.pop();
    add(below);
    add(above);
  }
  if (!open.empty()) least = open.top().value;
  return std::max(bound.objective, least * (1 - kSlack));
}

}  // namespace serrate
