#include "sharding/planner/bound.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <span>

#include "sharding/planner/misfits.h"
#include "sharding/planner/packing.h"

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
constexpr int kLoads = kPhases + 2;  // and memory of the devices and hosts
constexpr int kMostCuts = 9;
constexpr int kRows = kLoads + kMostCuts;
using Phases = std::array<double, kPhases>;
using Loads = std::array<double, kLoads>;
using Rows = std::array<double, kRows>;

// Shards of a candidate that take the same of their ranks: so many a rank, on average.
struct Part {
  int item = 0;
  double per_rank = 0;
  Loads takes = {};  // ms; parts of the most memory that a rank has
};

// What a candidate takes: ms on every rank, ms of its longest shard in each phase, and the mean
// over ranks of each row.
struct Demand {
  double uniform = 0;
  Phases longest = {};
  Rows mean = {};
  std::size_t first_part = 0, end_part = 0;
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
  std::vector<double> chosen = {};              // in the relaxed solution, how much of each
  std::vector<std::pair<int, int>> names = {};  // item and candidate
  // What items that are on all ranks, whatever their candidate, take of every rank at least; and
  // what that leaves.
  std::vector<Loads> surely = {};
  Loads room = {};
};

// On no rank do the shards take more than 1 by this: the weighted mean of what they take of a
// phase's slowest rank and of the memory, made whole where they do not come apart.
struct Cut {
  Loads weights = {};
  PackingFunction function = {};
  friend bool operator==(const Cut& a, const Cut& b) {
    return a.weights == b.weights && a.function.kind == b.function.kind &&
           a.function.parameter == b.function.parameter;
  }
};

// The slowest rank of phase k takes between low and high.
struct Box {
  Phases low = {};
  Phases high = {};
  Allowed allowed = {};
  std::vector<Cut> cuts = {};
  // Found by solve: the best prices of the rows, and what they prove.
  Rows prices = {1, 1, 1};
  double value = 0;
  double proved = 0;    // by these prices alone
  Phases slowest = {};  // in the relaxed solution
  Phases longest = {};  // of its shards
  // The item that it puts together most from candidates that take little and much of a row, in ms,
  // and which take much.
  double torn = 0;
  int torn_item = -1;
  std::vector<bool> takes_much = {};

  int num_rows() const { return kLoads + static_cast<int>(cuts.size()); }
  friend bool operator<(const Box& a, const Box& b) { return a.value > b.value; }
};

// Each item's choice of a candidate is relaxed: loads, memory and cuts have to keep to the limits
// only as means over the ranks. Every price of the rows (Lagrange) then proves a bound.
class Relaxation {
 public:
  Relaxation(const PlannerProblem& problem, PlannerObjective objective) : problem_(problem) {
    const std::int64_t most_device = *std::ranges::max_element(problem.device_bytes);
    const std::int64_t most_host = *std::ranges::max_element(problem.host_bytes);
    const double device = std::max(sum_of(problem.device_bytes), 1.0);
    const double host = std::max(sum_of(problem.host_bytes), 1.0);
    for (const PlannerItem& item : problem.items) {
      const auto first = std::ssize(all_.demands);
      for (const Candidate& c : item.candidates) {
        Demand d = demand_of(c, problem, objective);
        d.mean[kPhases] = static_cast<double>(c.total_device_bytes()) / device;
        d.mean[kPhases + 1] = static_cast<double>(c.total_host_bytes()) / host;
        d.first_part = parts_.size();
        add_parts(static_cast<int>(all_.item_ends.size()), c, d, most_device, most_host);
        d.end_part = parts_.size();
        // Twins, such as row_wise and table_row_wise on one node, would only be told apart in vain.
        if (std::any_of(all_.demands.begin() + first, all_.demands.end(),
                        [&](const Demand& other) { return is_twin(d, other); })) {
          parts_.resize(d.first_part);
          continue;
        }
        all_.names.emplace_back(static_cast<int>(all_.item_ends.size()),
                                static_cast<int>(&c - item.candidates.data()));
        all_.demands.push_back(d);
      }
      all_.item_ends.push_back(all_.demands.size());
    }
    // In ms, for memory to weigh about what time does.
    scale_ = std::max(solution({1, 1, 1}, kLoads, all_, nullptr).cost, 1e-12);
    for (Demand& d : all_.demands) {
      for (int j = kPhases; j < kLoads; ++j) d.mean[j] *= scale_;
    }
  }

  Box whole() const {
    Box box;
    box.high.fill(kInfinity);
    for (const PlannerItem& item : problem_.items) {
      box.allowed.emplace_back(item.candidates.size(), false);
    }
    for (const auto& [item, candidate] : all_.names) box.allowed[item][candidate] = true;
    return box;
  }
  // Of the time that all ranks spend alike, whatever is chosen in the box.
  double least_uniform(const Box& box) const;
  double scale() const { return scale_; }
  std::size_t num_demands() const { return all_.demands.size(); }

  // Raises box.value, up to `known`, by the volume algorithm (Barahona and Anbil 2000), which
  // steps along a running mean of the solutions; so many times with the cuts that the relaxed
  // solution breaks the most.
  void solve(Box& box, double known, int rounds, int cuttings) const;

 private:
  struct Solution {
    double cost = 0;  // at the prices, without what the rows have
    Rows mean = {};
    Phases longest = {};
  };

  // They take the same of everything that the bound counts.
  bool is_twin(const Demand& a, const Demand& b) const {
    const auto parts = [&](const Demand& d) {
      return std::span(parts_).subspan(d.first_part, d.end_part - d.first_part);
    };
    return a.uniform == b.uniform && a.longest == b.longest && a.mean == b.mean &&
           std::ranges::equal(parts(a), parts(b), [](const Part& p, const Part& q) {
             return p.per_rank == q.per_rank && p.takes == q.takes;
           });
  }

  // Without its memory.
  static Demand demand_of(const Candidate& c, const PlannerProblem& problem,
                          PlannerObjective objective) {
    Demand d{.uniform = c.everywhere.total(problem.estimator)};
    const Phases longest = phases_of(c, c.time, problem.estimator, objective);
    if (c.ranks_per_block == problem.world_size && c.full_ranks == problem.world_size) {
      d.uniform += c.num_blocks * std::accumulate(longest.begin(), longest.end(), 0.0);
    } else {
      const Phases work = phases_of(c, c.work, problem.estimator, objective);
      d.longest = longest;
      for (int k = 0; k < kPhases; ++k) d.mean[k] = work[k] / problem.world_size;
    }
    return d;
  }

  // Ranks with fewer rows than the first are taken to need no time.
  void add_parts(int item, const Candidate& c, const Demand& d, std::int64_t most_device,
                 std::int64_t most_host) {
    const auto of = [](std::int64_t bytes, std::int64_t most) {
      return static_cast<double>(bytes) / static_cast<double>(std::max<std::int64_t>(most, 1));
    };
    int begin = 0;
    for (const MemoryRun& run : c.memory) {
      for (const int end : {std::min(run.end, c.full_ranks), run.end}) {
        if (end <= begin) continue;
        Part part{
            .item = item,
            .per_rank = static_cast<double>(end - begin) * c.num_blocks / problem_.world_size};
        if (end <= c.full_ranks) std::copy(d.longest.begin(), d.longest.end(), part.takes.begin());
        part.takes[kPhases] = of(run.device_bytes, most_device);
        part.takes[kPhases + 1] = of(run.host_bytes, most_host);
        parts_.push_back(part);
        begin = end;
      }
    }
  }

  // The cheapest demand of each item.
  static Solution solution(const Rows& prices, int num_rows, const Choices& choices,
                           std::vector<std::size_t>* chosen_demands) {
    Solution sum;
    std::size_t i = 0;
    if (chosen_demands) chosen_demands->clear();
    for (const std::size_t end : choices.item_ends) {
      double least = kInfinity;
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
      if (!chosen) return {.cost = kInfinity};
      sum.cost += least;
      for (int j = 0; j < num_rows; ++j) sum.mean[j] += chosen->mean[j];
      for (int k = 0; k < kPhases; ++k) {
        sum.longest[k] = std::max(sum.longest[k], chosen->longest[k]);
      }
      if (chosen_demands) chosen_demands->push_back(chosen - choices.demands.data());
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
    for (int j = 0; j < box.num_rows(); ++j) {
      const double worth = (j < kPhases ? 1 : 0) - prices[j];
      if (worth != 0) sum += worth * supply(box, prices, s, j);
    }
    return sum;
  }

  Choices choices_in(const Box& box) const;
  void raise(Box& box, Choices& choices, double known, int rounds) const;
  void set_room(const Box& box, Choices& choices) const;
  double part_of(const Part& part, const Choices& choices, const Loads& weights) const;
  double mean_of(const Demand& d, const Choices& choices, const Cut& cut) const;
  bool add_cuts(Box& box, Choices& choices) const;
  bool take_out(Box& box, double known) const;
  void find_torn(Box& box, const Choices& choices) const;
  bool price_out(Box& box, const Choices& choices, double known) const;

  const PlannerProblem& problem_;
  Choices all_;
  std::vector<Part> parts_;
  double scale_ = 1;
};

double Relaxation::least_uniform(const Box& box) const {
  double sum = 0;
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    double least = kInfinity;
    for (; i < end; ++i) {
      const auto [item, candidate] = all_.names[i];
      if (box.allowed[item][candidate]) least = std::min(least, all_.demands[i].uniform);
    }
    sum += least;
  }
  return sum;
}

void Relaxation::set_room(const Box& box, Choices& choices) const {
  choices.surely.assign(problem_.items.size(), {});
  for (int k = 0; k < kLoads; ++k) choices.room[k] = k < kPhases ? box.high[k] : 1;
  std::size_t begin = 0;
  for (std::size_t item = 0; item < all_.item_ends.size(); ++item) {
    Loads least;
    least.fill(kInfinity);
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
    if (!everywhere || least[0] == kInfinity) continue;
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

// Those whose shards are not longer than the slowest rank of a phase may be.
Choices Relaxation::choices_in(const Box& box) const {
  Choices some;
  set_room(box, some);
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    for (; i < end; ++i) {
      Demand d = all_.demands[i];
      const auto [item, candidate] = all_.names[i];
      bool fits = box.allowed[item][candidate];
      for (int k = 0; k < kPhases; ++k) fits &= d.longest[k] <= box.high[k] * (1 + kSlack);
      if (!fits) continue;
      for (std::size_t c = 0; c < box.cuts.size(); ++c) {
        d.mean[kLoads + c] = mean_of(d, some, box.cuts[c]);
      }
      some.demands.push_back(d);
      some.names.push_back(all_.names[i]);
    }
    some.item_ends.push_back(some.demands.size());
  }
  some.chosen.assign(some.demands.size(), 0.0);
  return some;
}

// Adds the cuts that the relaxed solution breaks the most; instead of those that have no price, if
// need be. False when it breaks none.
bool Relaxation::add_cuts(Box& box, Choices& choices) const {
  constexpr double kLeastBroken = 1e-3;
  constexpr std::size_t kMostNew = 2, kMostParameters = 24;
  using enum PackingFunction::Kind;
  std::vector<Loads> mixes;
  for (int j = 0; j < kLoads; ++j) {
    if (j < kPhases && !(box.high[j] > 0 && box.high[j] < kInfinity)) continue;
    mixes.emplace_back()[j] = 1;
    for (int k = 0; k < j; ++k) {
      if (k < kPhases && !(box.high[k] > 0 && box.high[k] < kInfinity)) continue;
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

void Relaxation::solve(Box& box, double known, int rounds, int cuttings) const {
  if (!take_out(box, known)) return;
  Choices choices = choices_in(box);
  raise(box, choices, known, rounds);
  for (int i = 0; i < cuttings && box.value < known; ++i) {
    const bool fewer = known < kInfinity && price_out(box, choices, known);
    if (fewer) {
      if (!take_out(box, known)) return;
      choices = choices_in(box);
    }
    if (!add_cuts(box, choices) && !fewer) break;
    raise(box, choices, known, rounds);
  }
  if (box.value < known) find_torn(box, choices);
}

// Takes out the candidates that are too long for the box or do not fit it. False when an item is
// left with none: nothing in the box is below `known`.
bool Relaxation::take_out(Box& box, double known) const {
  for (std::size_t i = 0; i < all_.demands.size(); ++i) {
    const auto [item, candidate] = all_.names[i];
    for (int k = 0; k < kPhases; ++k) {
      if (all_.demands[i].longest[k] > box.high[k] * (1 + kSlack)) {
        box.allowed[item][candidate] = false;
      }
    }
  }
  if (!take_out_misfits(problem_, box.allowed)) return true;
  box.value = std::max(box.value, known);
  return false;
}

// Takes out the candidates with which nothing in the box is below `known`, at the best prices.
bool Relaxation::price_out(Box& box, const Choices& choices, double known) const {
  bool found = false;
  std::size_t begin = 0;
  for (const std::size_t end : choices.item_ends) {
    double least = kInfinity;
    std::vector<double> costs;
    for (std::size_t i = begin; i < end; ++i) {
      const Demand& d = choices.demands[i];
      double cost = d.uniform;
      for (int j = 0; j < box.num_rows(); ++j) cost += box.prices[j] * d.mean[j];
      costs.push_back(cost);
      least = std::min(least, cost);
    }
    for (std::size_t i = begin; i < end; ++i) {
      if (box.proved + costs[i - begin] - least <= known * (1 + kSlack)) continue;
      box.allowed[choices.names[i].first][choices.names[i].second] = false;
      found = true;
    }
    begin = end;
  }
  return found;
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
  if (best.cost == kInfinity) {
    box.value = kInfinity;
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
      if (j < kPhases && (passes_one || (prices[j] > 1 && box.high[j] == kInfinity))) prices[j] = 1;
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
      if (box.high[k] < kInfinity && box.high[k] - box.slowest[k] > most) {
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
  relaxation.solve(box, kInfinity, kRounds, 0);
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
    if (!tighten(box, known, relaxation.least_uniform(box) * (1 - kSlack))) return;
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
  return std::max(bound.objective, least * (1 - kSlack));
}

}  // namespace serrate
