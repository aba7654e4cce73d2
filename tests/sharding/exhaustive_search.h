#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "sharding/estimate/estimator.h"
#include "tests/sharding/random_instance.h"

namespace serrate {

/// All placements of all tables, depth first; those that cannot be cheaper than the best one known
/// are left out. Tables of a group are placed alike.
class ExhaustiveSearch {
 public:
  ExhaustiveSearch(const PlannerInstance& instance, PlannerEstimator estimator,
                   PlannerObjective objective)
      : model_(instance.model),
        topology_(instance.topology),
        estimator_(estimator),
        objective_(objective) {
    std::vector<std::vector<std::size_t>> sorted_groups;
    std::vector<std::vector<Option>> sorted_options;
    std::vector<bool> listed(model_.tables.size());
    for (std::size_t t = 0; t < model_.tables.size(); ++t) {
      if (listed[t]) continue;
      std::vector<std::size_t>& members = groups_.emplace_back();
      for (std::size_t u = t; u < model_.tables.size(); ++u) {
        const std::string& group = model_.tables[u].group;
        if (u != t && (group.empty() || group != model_.tables[t].group)) continue;
        listed[u] = true;
        members.push_back(u);
      }
    }
    // Those that take the most first, and of each its cheapest placements, which leave the fewest
    // of the others to try.
    const auto work = [](const Option& option) { return option.work; };
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      std::vector<Option>& options = options_.emplace_back(options_of(groups_[g]));
      std::ranges::stable_sort(options, {}, work);
      order.emplace_back(options.empty() ? 0 : -options.front().work, g);
    }
    std::ranges::sort(order);
    for (const auto& [negated_work, g] : order) {
      sorted_groups.push_back(groups_[g]);
      sorted_options.push_back(std::move(options_[g]));
    }
    groups_ = std::move(sorted_groups);
    options_ = std::move(sorted_options);
    note_phases();
    least_work_.assign(groups_.size() + 1, 0.0);
    for (std::size_t g = groups_.size(); g-- > 0;) {
      double least = std::numeric_limits<double>::infinity();
      for (const Option& option : options_[g]) least = std::min(least, option.work);
      least_work_[g] = least_work_[g + 1] + least;
    }
  }

  /// The least objective below `below` within the memory; infinite when there is none.
  double run(double below) {
    best_ = below;
    found_ = false;
    chosen_.assign(model_.tables.size(), {});
    descend(0, std::vector<Option::OnRank>(topology_.world_size));
    return found_ ? best_ : std::numeric_limits<double>::infinity();
  }
  /// The placement that has it, table by table.
  const std::vector<PlacedTable>& placement() const { return best_placement_; }

 private:
  // What one placement of a table adds to each rank: times of its phases (as PlannerObjective
  // says), memory.
  struct Option {
    struct OnRank {
      PhaseTimes phases = {};  // of one of them: the sum of all, for max_rank
      std::int64_t device = 0;
      std::int64_t host = 0;
    };
    PlacedTable placed;
    std::vector<OnRank> ranks;
    double work = 0;  // ms, summed over phases and ranks
  };

  bool may_have(const PlannerTable& t, ShardingType type, ComputeKernel kernel) const {
    const bool replicated = type == ShardingType::kDataParallel;
    if (replicated != (kernel == ComputeKernel::kDense)) return false;
    if (topology_.device == PlannerDevice::kCpu && kernel > ComputeKernel::kFused) return false;
    if (t.sharding_types.empty() ? type == ShardingType::kGrid
                                 : !std::ranges::count(t.sharding_types, type)) {
      return false;
    }
    return t.kernels.empty() ? kernel <= ComputeKernel::kFused
                             : std::ranges::count(t.kernels, kernel) > 0;
  }

  std::vector<Option> options_of(const std::vector<std::size_t>& members) const {
    std::vector<Option> options;
    for (int type = 0; type < 7; ++type) {
      for (int kernel = 0; kernel < 4; ++kernel) {
        add_options(members, static_cast<ShardingType>(type), static_cast<ComputeKernel>(kernel),
                    options);
      }
    }
    return options;
  }

  void add_options(const std::vector<std::size_t>& members, ShardingType type, ComputeKernel kernel,
                   std::vector<Option>& options) const {
    const PlannerTable& first = model_.tables[members.front()];
    int blocks = 0;
    for (const std::size_t t : members) {
      const PlannerTable& table = model_.tables[t];
      if (!may_have(table, type, kernel)) return;
      blocks = sharding_option(table, type, kernel, topology_, 1).num_column_blocks;
      if (members.size() > 1 && blocks > 1) return;
    }
    if (type == ShardingType::kDataParallel || type == ShardingType::kRowWise) blocks = 0;
    const bool by_node = type == ShardingType::kTableRowWise || type == ShardingType::kGrid;
    const int places = by_node ? topology_.num_nodes() : topology_.world_size;
    // Blocks are equal: only sorted places, by counting.
    std::vector<int> at(blocks, 0);
    for (;;) {
      Option option{.placed = {type, kernel, at},
                    .ranks = std::vector<Option::OnRank>(topology_.world_size)};
      bool possible = true;
      for (const std::size_t t : members) possible &= add(model_.tables[t], option);
      if (type == ShardingType::kTableColumnWise) {
        possible &= at.front() / topology_.ranks_per_node == at.back() / topology_.ranks_per_node;
      }
      if (possible && !(type == ShardingType::kDataParallel && !first.ranks.empty())) {
        options.push_back(option);
      }
      int i = blocks - 1;
      while (i >= 0 && at[i] == places - 1) --i;
      if (i < 0) return;
      std::fill(at.begin() + i, at.end(), at[i] + 1);
    }
  }

  // Adds a table's shards to the option's ranks; false when one may not be there.
  bool add(const PlannerTable& table, Option& option) const {
    const PlacedTable& placed = option.placed;
    const int confined = static_cast<int>(table.ranks.size());
    const ShardingOption cut = sharding_option(table, placed.type, placed.kernel, topology_,
                                               confined ? confined : topology_.world_size);
    const auto add_shard = [&](int rank, std::int64_t rows) {
      const ShardEstimate e =
          estimate_shard(estimator_, table, cut, rows, topology_, model_.batch_size);
      Option::OnRank& on = option.ranks[rank];
      option.work += e.total(estimator_);
      on.device += e.device_bytes;
      on.host += e.host_bytes;
      if (objective_ == PlannerObjective::kMaxRank) {
        on.phases[0] += e.total(estimator_);
      } else {
        const PhaseTimes times = phase_times(estimator_, placed.type, e);
        for (int k = 0; k < kMostPhases; ++k) on.phases[k] += times[k];
      }
      return confined == 0 || std::ranges::count(table.ranks, rank) > 0;
    };
    bool allowed = true;
    switch (placed.type) {
      case ShardingType::kDataParallel:
        for (int r = 0; r < topology_.world_size; ++r) add_shard(r, table.num_rows);
        break;
      case ShardingType::kRowWise:
        for (int i = 0; i < (confined ? confined : topology_.world_size); ++i) {
          add_shard(confined ? table.ranks[i] : i, rows_of(table, cut, i));
        }
        break;
      case ShardingType::kTableRowWise:
      case ShardingType::kGrid:
        for (const int node : placed.blocks) {
          for (int i = 0; i < topology_.ranks_per_node; ++i) {
            allowed &= add_shard(node * topology_.ranks_per_node + i, rows_of(table, cut, i));
          }
        }
        break;
      default:
        for (const int rank : placed.blocks) allowed &= add_shard(rank, table.num_rows);
    }
    return allowed;
  }

  // The phases in which any placement takes time.
  void note_phases() {
    for (int k = 0; k < kMostPhases; ++k) {
      const auto takes_time = [&](const Option::OnRank& rank) { return rank.phases[k] > 0; };
      const bool used = std::ranges::any_of(options_, [&](const std::vector<Option>& options) {
        return std::ranges::any_of(options, [&](const Option& option) {
          return std::ranges::any_of(option.ranks, takes_time);
        });
      });
      if (used) phases_.push_back(k);
    }
  }

  double objective(const std::vector<Option::OnRank>& ranks) const {
    double sum = 0;
    for (const int k : phases_) {
      double longest = 0;
      for (const auto& rank : ranks) longest = std::max(longest, rank.phases[k]);
      sum += longest;
    }
    return sum;
  }

  // For all tables together; infinite when they do not fit. By our model the tables share more than
  // their shards' sums.
  double whole_objective(const std::vector<Option::OnRank>& ranks) const {
    if (estimator_ == PlannerEstimator::kTorchRec) return objective(ranks);
    const PlanCost cost = cost_of(model_, topology_, chosen_, estimator_);
    for (int r = 0; r < topology_.world_size; ++r) {
      if (cost.device_bytes[r] > topology_.device_bytes[r] ||
          cost.host_bytes[r] > topology_.host_bytes[r]) {
        return std::numeric_limits<double>::infinity();
      }
    }
    return objective_ == PlannerObjective::kMaxRank ? cost.max_rank : cost.critical_path;
  }

  // No plan that adds the tables from `group` on to these ranks is cheaper.
  double least(const std::vector<Option::OnRank>& ranks, std::size_t group) const {
    double work = least_work_[group];
    for (const auto& rank : ranks) {
      for (const int k : phases_) work += rank.phases[k];
    }
    return std::max(objective(ranks), work / topology_.world_size);
  }

  void descend(std::size_t group, const std::vector<Option::OnRank>& ranks) {
    if (group == groups_.size()) {
      const double found = whole_objective(ranks);
      if (found >= best_) return;
      best_ = found;
      best_placement_ = chosen_;
      found_ = true;
      return;
    }
    std::vector<Option::OnRank> with;
    for (const Option& option : options_[group]) {
      with = ranks;
      bool fits = true;
      for (int r = 0; r < topology_.world_size && fits; ++r) {
        for (const int k : phases_) with[r].phases[k] += option.ranks[r].phases[k];
        with[r].device += option.ranks[r].device;
        with[r].host += option.ranks[r].host;
        fits =
            with[r].device <= topology_.device_bytes[r] && with[r].host <= topology_.host_bytes[r];
      }
      if (!fits || least(with, group + 1) >= best_) continue;
      for (const std::size_t t : groups_[group]) chosen_[t] = option.placed;
      descend(group + 1, with);
    }
  }

  const PlannerModel& model_;
  const PlannerTopology& topology_;
  PlannerEstimator estimator_;
  PlannerObjective objective_;
  std::vector<std::vector<std::size_t>> groups_;  // tables that are placed alike
  std::vector<std::vector<Option>> options_;      // [num_groups]
  std::vector<int> phases_;
  std::vector<double> least_work_;  // of a group and all after it
  std::vector<PlacedTable> chosen_, best_placement_;
  double best_ = 0;
  bool found_ = false;
};

}  // namespace serrate
