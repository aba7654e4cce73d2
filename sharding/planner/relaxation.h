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
constexpr int kMostGroups = 4;       // of ranks: nodes, or all ranks
constexpr int kMostCuts = 12;
// Where nodes are told apart, of max_rank, each has one row of time, as only the first phase takes
// any, and two of memory; where not, one group has all kLoads. Before rows that no placement can
// break are left out, and cuts are added, each group has kLoads.
constexpr int kMostRows = std::max(kLoads, 3 * kMostGroups) + kMostCuts;
static_assert(kLoads * kMostGroups <= kMostRows);
using PhaseSums = std::array<double, kPhases>;
using Loads = std::array<double, kLoads>;
using Rows = std::array<double, kMostRows>;

// Shards of a demand that take the same of their ranks: so many a rank of the group, on average.
struct Part {
  int group = 0;
  double per_rank = 0;
  Loads takes = {};  // ms; parts of the most memory that a rank has
  friend bool operator==(const Part&, const Part&) = default;
};

// A candidate with so many of its blocks in each group, and what it takes: ms on every rank, ms of
// its longest shard in each phase, and of each row the mean over the ranks that it is about.
struct Demand {
  int item = 0;
  int candidate = 0;
  std::array<int, kMostGroups> blocks = {};
  double uniform = 0;
  PhaseSums longest = {};
  Rows mean = {};
  std::size_t first_part = 0, end_part = 0;
};

// The mean of a load over the ranks of a group.
struct LoadRow {
  int group = 0;
  int load = 0;
  double has = 1;  // of memory, a rank on average, in parts of what a rank has at the most
};

// Each item has those from the end of the item before on.
struct Choices {
  std::vector<Demand> demands = {};
  std::vector<std::size_t> item_ends = {};
  std::vector<std::size_t> names = {};  // which of all demands, in a box
  std::vector<double> chosen = {};      // in the relaxed solution, how much of each
  std::vector<double> means = {};       // [num_rows, num_demands], of the demands

  // Fills `means`.
  void transpose_means(int num_rows);
  // ms of each demand at the prices.
  std::vector<double> costs(const Rows& prices, int num_rows) const;
};

// What items take of every rank of a group at least, whatever their demand; and what that leaves.
struct Room {
  std::vector<std::array<Loads, kMostGroups>> surely = {};  // [num_items]
  std::array<Loads, kMostGroups> left = {};
};

// On no rank of the group do the shards take more than 1 by this: the weighted mean of what they
// take of a phase's slowest rank and of the memory, made whole where they do not come apart.
struct Cut {
  int group = 0;
  Loads weights = {};
  PackingFunction function = {};
  friend bool operator==(const Cut& a, const Cut& b) {
    return a.group == b.group && a.weights == b.weights && a.function.kind == b.function.kind &&
           a.function.parameter == b.function.parameter;
  }
};

// The slowest rank of phase k takes between low and high.
struct Box {
  PhaseSums low = {};
  PhaseSums high = {};
  std::vector<bool> allowed = {};  // [num_demands]
  std::vector<Cut> cuts = {};
  // Found by solve: the best prices of the rows, and what they prove.
  Rows prices = {};
  double value = 0;
  double proved = 0;       // by these prices alone
  PhaseSums slowest = {};  // in the relaxed solution
  PhaseSums longest = {};  // of its shards
  // Demands of the item that it puts together most from those that take little and much of a row;
  // where it tears none, much is the one demand that the item which takes the most time has.
  std::vector<std::size_t> torn_little = {}, torn_much = {};
  std::vector<std::size_t> rounded = {};  // of each item, the demand that it has most of

  friend bool operator<(const Box& a, const Box& b) { return a.value > b.value; }
};

// Each item's choice of a demand is relaxed: loads, memory and cuts have to keep to the limits only
// as means over the ranks of a group. Every price of the rows (Lagrange) then proves a bound.
//
// Groups are the nodes where there are few of them, of max_rank; else one has all ranks.
// Every placement has so many blocks of each item in each node, which is one of the demands, or its
// twin: one that takes the same in every way, of which the first is kept. It keeps to the rows of
// each node, as the slowest rank is no faster than the mean of any node's; and what an item takes
// of all ranks of a node whatever its demand, as a table_row_wise one does when all its demands
// left have a block there, is taken off what the node's ranks have left for the shards that do not
// come apart. Where nodes are alike, they can be numbered anew so that one item has its blocks
// sorted by node; what the last ranks of a row_wise table lack does not tell nodes apart, as all
// ranks are taken to lack it.
class Relaxation {
 public:
  enum class Nodes { kTogether, kApartIfFew };
  Relaxation(const PlannerProblem& problem, PlannerObjective objective, Nodes nodes);

  Box whole() const;
  // The least time that all ranks spend alike, whatever is chosen in the box.
  double least_uniform(const Box& box) const;
  double scale() const { return scale_; }
  // A load's price in the box, the mean over groups.
  double price(const Box& box, int load) const;
  std::size_t num_demands() const { return all_.demands.size(); }
  const Demand& demand(std::size_t i) const { return all_.demands[i]; }
  int num_groups() const { return num_groups_; }

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
  using Blocks = std::array<int, kMostGroups>;

  // relaxation_demands.cc
  int group_of(int rank) const { return rank / (problem_.world_size / num_groups_); }
  bool may_be_in(const PlannerItem& item, const Candidate& c, int group) const;
  std::vector<Blocks> block_counts(const PlannerItem& item, const Candidate& c) const;
  std::size_t count_demands() const;
  void add_demands(PlannerObjective objective);
  Demand demand_of(int item, int candidate, const Blocks& blocks, PlannerObjective objective);
  void add_parts(const Candidate& c, const Demand& d);
  double mean_memory(int group, int load) const;
  bool is_twin(const Demand& a, const Demand& b) const;
  void keep_rows();
  void break_symmetry();

  // relaxation.cc
  int num_rows(const Box& box) const {
    return static_cast<int>(rows_.size()) + static_cast<int>(box.cuts.size());
  }
  Choices choices_in(const Box& box, const Room& room) const;
  bool take_out(Box& box, double known) const;
  bool take_out_long(Box& box, const Room& room) const;
  bool price_out(Box& box, const Choices& choices, double known) const;

  // relaxation_solve.cc
  // The cheapest demand of each item.
  static Solution solution(const Rows& prices, int num_rows, const Choices& choices,
                           std::vector<std::size_t>* chosen_demands);
  double mean_time(const Demand& d) const;  // of all ranks, ms
  PhaseSums phase_prices(const Rows& prices) const;
  Rows supply(const Box& box, const Rows& prices, const Solution& s) const;
  double value(const Box& box, const Rows& prices, const Solution& s) const;
  Rows step(const Box& box, const Rows& excess, double length) const;
  void raise(Box& box, Choices& choices, double known, int rounds) const;
  void find_torn(Box& box, const Choices& choices) const;
  void tell_apart(Box& box, const Choices& choices) const;
  void round(Box& box, const Choices& choices) const;

  // relaxation_cuts.cc
  Room room_in(const Box& box) const;
  bool is_on_all(const Demand& d, int group) const;
  double part_of(const Part& part, int item, const Room& room, const Loads& weights) const;
  double mean_of(const Demand& d, const Room& room, const Cut& cut) const;
  bool add_cuts(Box& box, Choices& choices, const Room& room) const;

  const PlannerProblem& problem_;
  int num_groups_ = 1;
  double most_device_ = 1, most_host_ = 1;  // bytes that a rank has
  std::vector<LoadRow> rows_;
  Choices all_;
  std::vector<Part> parts_;
  std::vector<bool> canonical_;  // demands that are left when alike nodes are told apart
  double scale_ = 1;
};

}  // namespace serrate
