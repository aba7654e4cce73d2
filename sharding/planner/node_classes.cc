#include "sharding/planner/node_classes.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

namespace serrate {
namespace {

constexpr int kClasses = 2;
constexpr int kMostParts = 3;
// Of a phase, each of which its slowest rank takes at least: the mean load of each class; what is
// on all ranks of its nodes, and the longest shard that it has room for; and shards that are on a
// rank alone, rounded to a half, a third and a quarter (Fekete and Schepers 2001).
constexpr int kRowsPerPhase = 2 * kClasses + kMostParts;

using RowLoads = std::vector<double>;  // [num_phases * kRowsPerPhase], ms

// A choice in a class, or everywhere.
struct Option {
  int choice = 0;
  int node_class = 0;
  double cost = 0;  // ms: on every rank alike, and the price of its memory
};

bool is_in_class(const Candidate& c) {
  return c.scope == BlockScope::kRank || c.scope == BlockScope::kNode;
}

// Prices of the rows, of each phase 1 together, are moved by multiplicative weights (Arora et al.
// 2012) towards those with the longest rows; what items choose at the prices is averaged, and
// rounded to one choice each.
class ClassRelaxation {
 public:
  ClassRelaxation(const PlannerProblem& problem, const Phases& phases, const PlannerBound& bound,
                  const NodeClasses& classes)
      : problem_(problem),
        phases_(phases),
        bound_(bound),
        classes_(classes),
        mean_(phases.num_phases),
        room_(static_cast<std::size_t>(phases.num_phases) * kRowsPerPhase) {
    find_room();
    add_options();
  }

  std::vector<ClassChoice> solve() {
    const std::vector<double> parts = relax();
    round_to_whole(parts);
    // From smooth to sharp.
    for (int doublings = 4; doublings <= 8; ++doublings) improve(parts, doublings);
    return put_on_nodes();
  }

 private:
  const Candidate& candidate(std::size_t item, int choice) const {
    return problem_.items[item].candidates[phases_.items[item][choice].candidate];
  }
  double part_of_nodes(int node_class) const {
    const double first = static_cast<double>(classes_.first_nodes) / problem_.num_nodes();
    return node_class == 0 ? first : 1 - first;
  }
  std::size_t begin_of(std::size_t item) const { return item == 0 ? 0 : item_ends_[item - 1]; }
  double room(std::size_t phase, int node_class) const {
    return room_[phase * kRowsPerPhase + kClasses + node_class];
  }

  // In the phases that have both, what is on all ranks of a node and what is on one alone.
  void find_room() {
    std::vector<bool> on_nodes(mean_.size()), on_ranks(mean_.size());
    for (std::size_t i = 0; i < phases_.items.size(); ++i) {
      const auto& choices = phases_.items[i];
      const auto least = std::ranges::min_element(choices, {}, &Phases::Choice::work);
      const Candidate& cheapest = candidate(i, static_cast<int>(least - choices.begin()));
      for (std::size_t k = 0; k < least->time.size(); ++k) {
        mean_[k] += mean_time(cheapest, least->time[k]);
      }
      for (int c = 0; c < std::ssize(choices); ++c) {
        const BlockScope scope = candidate(i, c).scope;
        for (std::size_t k = 0; k < choices[c].time.size(); ++k) {
          if (choices[c].time[k] == 0) continue;
          if (scope == BlockScope::kNode) on_nodes[k] = true;
          if (scope == BlockScope::kRank) on_ranks[k] = true;
        }
      }
    }
    for (std::size_t k = 0; k < mean_.size(); ++k) {
      if (!on_nodes[k] || !on_ranks[k]) continue;
      room_[k * kRowsPerPhase + kClasses] = classes_.longest_in_first * mean_[k];
      room_[k * kRowsPerPhase + kClasses + 1] = classes_.longest_in_others * mean_[k];
    }
  }

  double mean_time(const Candidate& c, double time) const {
    return time * c.num_blocks * c.ranks_per_block / problem_.world_size;
  }

  void add_options() {
    for (std::size_t i = 0; i < phases_.items.size(); ++i) {
      const std::size_t begin = options_.size();
      const auto& choices = phases_.items[i];
      for (int c = 0; c < std::ssize(choices); ++c) {
        for (int g = 0; g < (is_in_class(candidate(i, c)) ? kClasses : 1); ++g) {
          if (has_room(i, c, g)) add_option(i, c, g);
        }
      }
      if (options_.size() == begin) {
        const auto shortest = std::ranges::min_element(choices, {}, &Phases::Choice::longest);
        add_option(i, static_cast<int>(shortest - choices.begin()), 0);
      }
      item_ends_.push_back(options_.size());
    }
    by_row_.resize(takes_.size());
    for (std::size_t i = 0; i < options_.size(); ++i) {
      for (std::size_t j = 0; j < room_.size(); ++j) {
        by_row_[j * options_.size() + i] = takes_[i * room_.size() + j];
      }
    }
  }

  bool has_room(std::size_t item, int c, int node_class) const {
    if (candidate(item, c).scope != BlockScope::kRank) return true;
    const auto& time = phases_.items[item][c].time;
    for (std::size_t k = 0; k < time.size(); ++k) {
      const double most = room(k, node_class);
      if (most > 0 && time[k] > most) return false;
    }
    return true;
  }

  void add_option(std::size_t item, int c, int node_class) {
    const Phases::Choice& choice = phases_.items[item][c];
    const Candidate& of = candidate(item, c);
    options_.push_back({c, node_class,
                        choice.uniform +
                            bound_.device_price * static_cast<double>(of.total_device_bytes()) +
                            bound_.host_price * static_cast<double>(of.total_host_bytes())});
    takes_.resize(takes_.size() + room_.size());
    for (std::size_t k = 0; k < choice.time.size(); ++k) {
      double* takes = &takes_[takes_.size() - room_.size() + k * kRowsPerPhase];
      const double mean = mean_time(of, choice.time[k]);
      for (int g = 0; g < kClasses; ++g) {
        if (is_in_class(of) && g != node_class) continue;
        takes[g] = is_in_class(of) ? mean / part_of_nodes(g) : mean;
        if (of.scope != BlockScope::kRank) takes[kClasses + g] = takes[g];
      }
      if (of.scope == BlockScope::kRank && room(k, 0) == 0)
        add_parts(k, mean, choice.time[k], takes);
    }
  }

  void add_parts(std::size_t phase, double mean, double time, double* takes) const {
    // Of the mean of the cheapest choices, of which the best ones move some to other phases.
    constexpr double kSlowest = 0.9;
    const double slowest = kSlowest * mean_[phase];
    if (time <= 0 || slowest <= 0) return;
    for (int parts = 1; parts <= kMostParts; ++parts) {
      const double rounded = std::floor(time / slowest * (parts + 1)) / parts * slowest;
      takes[2 * kClasses + parts - 1] = mean * rounded / time;
    }
  }

  // Row by row, in loops over options that compile to vector instructions.
  void find_costs(const RowLoads& prices, std::vector<double>& costs) const {
    for (std::size_t i = 0; i < options_.size(); ++i) costs[i] = options_[i].cost;
    for (std::size_t j = 0; j < prices.size(); ++j) {
      const double price = prices[j];
      const double* takes = &by_row_[j * options_.size()];
      for (std::size_t i = 0; i < costs.size(); ++i) costs[i] += price * takes[i];
    }
  }
  void add(std::size_t option, double times, RowLoads& loads) const {
    const double* takes = &takes_[option * room_.size()];
    for (std::size_t j = 0; j < loads.size(); ++j) loads[j] += times * takes[j];
  }

  // How often each option is chosen.
  std::vector<double> relax() const {
    constexpr int kRounds = 80;
    constexpr double kStep = 6, kSlower = 0.6, kLeastPrice = 1e-6;
    RowLoads prices(room_.size(), 0.02);
    for (std::size_t first = 0; first < prices.size(); first += kRowsPerPhase) {
      for (int g = 0; g < kClasses; ++g) prices[first + g] = part_of_nodes(g);
    }
    normalize(prices);
    std::vector<double> chosen(options_.size()), costs(options_.size());
    const double scale = std::accumulate(mean_.begin(), mean_.end(), 1e-12);
    for (int round = 0; round < kRounds; ++round) {
      RowLoads loads = room_;
      find_costs(prices, costs);
      for (std::size_t item = 0; item < item_ends_.size(); ++item) {
        const auto of_item =
            std::span(costs).subspan(begin_of(item), item_ends_[item] - begin_of(item));
        const auto least = std::ranges::min_element(of_item);
        const std::size_t best = begin_of(item) + static_cast<std::size_t>(least - of_item.begin());
        add(best, 1, loads);
        if (2 * round >= kRounds) ++chosen[best];
      }
      const double step = kStep / scale / std::pow(round + 1, kSlower);
      for (std::size_t j = 0; j < prices.size(); ++j) {
        const double longest = longest_of(loads, j - j % kRowsPerPhase);
        prices[j] = std::max(kLeastPrice, prices[j] * std::exp(step * (loads[j] - longest)));
      }
      normalize(prices);
    }
    return chosen;
  }

  static double longest_of(const RowLoads& loads, std::size_t first) {
    return *std::max_element(&loads[first], &loads[first] + kRowsPerPhase);
  }
  static void normalize(RowLoads& prices) {
    for (auto of_phase = prices.begin(); of_phase != prices.end(); of_phase += kRowsPerPhase) {
      const double sum = std::accumulate(of_phase, of_phase + kRowsPerPhase, 0.0);
      std::for_each(of_phase, of_phase + kRowsPerPhase, [&](double& price) { price /= sum; });
    }
  }

  // One item after another, those that take the most first, so that the loads stay near to those
  // of the parts.
  void round_to_whole(const std::vector<double>& parts) {
    constexpr double kLeastPart = 0.02;
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t item = 0; item < item_ends_.size(); ++item) {
      const auto begin =
          takes_.begin() + static_cast<std::ptrdiff_t>(begin_of(item) * room_.size());
      const auto end =
          takes_.begin() + static_cast<std::ptrdiff_t>(item_ends_[item] * room_.size());
      order.emplace_back(-*std::max_element(begin, end), item);
    }
    std::ranges::sort(order);
    chosen_.resize(item_ends_.size());
    RowLoads missing(room_.size());
    for (const auto& [takes, item] : order) {
      const std::size_t begin = begin_of(item), end = item_ends_[item];
      double sum = 0;
      for (std::size_t i = begin; i < end; ++i) sum += parts[i];
      for (std::size_t i = begin; i < end; ++i) add(i, parts[i] / sum, missing);
      double least = kInfinity;
      for (std::size_t i = begin; i < end; ++i) {
        if (parts[i] < kLeastPart * sum) continue;
        RowLoads left = missing;
        add(i, -1, left);
        const double square = std::inner_product(left.begin(), left.end(), left.begin(), 0.0);
        if (square < least) std::tie(least, chosen_[item]) = std::pair(square, i);
      }
      add(chosen_[item], -1, missing);
    }
  }

  // Changes one item at a time, to what it chose in some round, while the longest rows of all
  // phases, by their powers of 2^doublings, get shorter.
  void improve(const std::vector<double>& parts, int doublings) {
    RowLoads loads = room_, changed;
    double costs = 0;
    for (const std::size_t i : chosen_) {
      add(i, 1, loads);
      costs += options_[i].cost;
    }
    double best = costs + smooth_longest(loads, doublings);
    for (std::size_t item = 0; item < item_ends_.size(); ++item) {
      for (std::size_t i = begin_of(item); i < item_ends_[item]; ++i) {
        if (i == chosen_[item] || parts[i] == 0) continue;
        changed = loads;
        add(chosen_[item], -1, changed);
        add(i, 1, changed);
        const double new_costs = costs - options_[chosen_[item]].cost + options_[i].cost;
        const double now = new_costs + smooth_longest(changed, doublings);
        if (now >= best * (1 - 1e-12)) continue;
        best = now;
        costs = new_costs;
        std::swap(loads, changed);
        chosen_[item] = i;
      }
    }
  }

  static double smooth_longest(const RowLoads& loads, int doublings) {
    double sum = 0;
    for (std::size_t first = 0; first < loads.size(); first += kRowsPerPhase) {
      const double longest = longest_of(loads, first);
      if (longest <= 0) continue;
      double powers = 0;
      for (int j = 0; j < kRowsPerPhase; ++j) {
        double power = loads[first + j] / longest;
        for (int i = 0; i < doublings; ++i) power *= power;
        powers += power;
      }
      sum += longest * (1 + std::log(powers) / (1 << doublings));
    }
    return sum;
  }

  // What is on all ranks of a node goes to those of its class, the longest first, each where the
  // fullest phase is the least full.
  std::vector<ClassChoice> put_on_nodes() const {
    RowLoads loads = room_;
    for (const std::size_t i : chosen_) add(i, 1, loads);
    std::vector<std::vector<double>> has(kClasses);
    for (std::size_t k = 0; k < mean_.size(); ++k) {
      for (int g = 0; g < kClasses; ++g) {
        has[g].push_back(std::max(longest_of(loads, k * kRowsPerPhase) - room(k, g), 1e-9));
      }
    }
    std::vector<ClassChoice> choices;
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t item = 0; item < chosen_.size(); ++item) {
      const Option& option = options_[chosen_[item]];
      choices.push_back({option.choice});
      const Candidate& c = candidate(item, option.choice);
      const bool is_free = c.num_blocks == 1 && problem_.items[item].ranks.empty();
      if (c.scope != BlockScope::kNode || !is_free) continue;
      const std::vector<double> nothing(mean_.size());
      order.emplace_back(-fullest(nothing, item, has[option.node_class]), item);
    }
    std::ranges::sort(order);
    std::vector<std::vector<double>> used(problem_.num_nodes(), std::vector<double>(mean_.size()));
    for (const auto& [part, item] : order) {
      const Option& option = options_[chosen_[item]];
      const int begin = option.node_class == 0 ? 0 : classes_.first_nodes;
      const int end = option.node_class == 0 ? classes_.first_nodes : problem_.num_nodes();
      double least = kInfinity;
      for (int node = begin; node < end; ++node) {
        const double full = fullest(used[node], item, has[option.node_class]);
        if (full < least) std::tie(least, choices[item].node) = std::pair(full, node);
      }
      const auto& time = phases_.items[item][option.choice].time;
      for (std::size_t k = 0; k < time.size(); ++k) used[choices[item].node][k] += time[k];
    }
    return choices;
  }

  // Of a node, with the item on it.
  double fullest(const std::vector<double>& used, std::size_t item,
                 const std::vector<double>& has) const {
    const auto& time = phases_.items[item][options_[chosen_[item]].choice].time;
    double most = 0;
    for (std::size_t k = 0; k < time.size(); ++k)
      most = std::max(most, (used[k] + time[k]) / has[k]);
    return most;
  }

  const PlannerProblem& problem_;
  const Phases& phases_;
  const PlannerBound& bound_;
  NodeClasses classes_;
  std::vector<double> mean_;  // [num_phases], ms of a rank, of the cheapest choices
  RowLoads room_;
  std::vector<Option> options_;
  std::vector<double> takes_;   // [num_options, num_rows], ms
  std::vector<double> by_row_;  // the same, [num_rows, num_options]
  std::vector<std::size_t> item_ends_;
  std::vector<std::size_t> chosen_;  // [num_items], of the options
};

}  // namespace

std::vector<ClassChoice> choose_by_class(const PlannerProblem& problem, const Phases& phases,
                                         const PlannerBound& bound, const NodeClasses& classes) {
  return ClassRelaxation(problem, phases, bound, classes).solve();
}

}  // namespace serrate
