#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "sharding/planner/misfits.h"
#include "sharding/planner/packing.h"
#include "sharding/planner/problem.h"

namespace serrate {

constexpr double kUnbounded = std::numeric_limits<double>::infinity();
// Sums of many doubles are compared with this slack, to the side on which the bound stays true.
constexpr double kBoundSlack = 1e-10;

// What a placement takes is at least the sum of the slowest ranks' times of these phases, and of
// the time that all ranks spend alike. max_rank is one phase. Of the critical path, phases that
// wait for each other are taken together where that loses little: compute of both directions; the
// exchanges of shards that are on a rank alone, and of the others.
constexpr int kPhases = 3;
constexpr int kLoads = kPhases + 2;  // and memory of the devices and hosts
constexpr int kMostCuts = 9;
constexpr int kRows = kLoads + kMostCuts;
using PhaseSums = std::array<double, kPhases>;
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
  PhaseSums longest = {};
  Rows mean = {};
  std::size_t first_part = 0, end_part = 0;
};

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
  PhaseSums low = {};
  PhaseSums high = {};
  Allowed allowed = {};
  std::vector<Cut> cuts = {};
  // Found by solve: the best prices of the rows, and what they prove.
  Rows prices = {1, 1, 1};
  double value = 0;
  double proved = 0;       // by these prices alone
  PhaseSums slowest = {};  // in the relaxed solution
  PhaseSums longest = {};  // of its shards
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
  Relaxation(const PlannerProblem& problem, PlannerObjective objective);

  Box whole() const;
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
    PhaseSums longest = {};
  };

  // relaxation.cc
  // They take the same of everything that the bound counts.
  bool is_twin(const Demand& a, const Demand& b) const;

  // Without its memory.
  static Demand demand_of(const Candidate& c, const PlannerProblem& problem,
                          PlannerObjective objective);

  // Ranks with fewer rows than the first are taken to need no time.
  void add_parts(int item, const Candidate& c, const Demand& d, std::int64_t most_device,
                 std::int64_t most_host);

  Choices choices_in(const Box& box) const;
  bool take_out(Box& box, double known) const;
  bool price_out(Box& box, const Choices& choices, double known) const;

  // relaxation_solve.cc
  // The cheapest demand of each item.
  static Solution solution(const Rows& prices, int num_rows, const Choices& choices,
                           std::vector<std::size_t>* chosen_demands);

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

  void raise(Box& box, Choices& choices, double known, int rounds) const;
  void find_torn(Box& box, const Choices& choices) const;

  // relaxation_cuts.cc
  void set_room(const Box& box, Choices& choices) const;
  double part_of(const Part& part, const Choices& choices, const Loads& weights) const;
  double mean_of(const Demand& d, const Choices& choices, const Cut& cut) const;
  bool add_cuts(Box& box, Choices& choices) const;

  const PlannerProblem& problem_;
  Choices all_;
  std::vector<Part> parts_;
  double scale_ = 1;
};

}  // namespace serrate
