#include "sharding/planner/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "serrate/error.h"
#include "sharding/planner/check_input.h"

namespace serrate {
namespace {

constexpr ShardingType kDefaultTypes[] = {
    ShardingType::kDataParallel, ShardingType::kTableWise,    ShardingType::kRowWise,
    ShardingType::kColumnWise,   ShardingType::kTableRowWise, ShardingType::kTableColumnWise};
constexpr ComputeKernel kDefaultKernels[] = {ComputeKernel::kDense, ComputeKernel::kFused};

BlockScope scope_of(ShardingType type, bool confined) {
  switch (type) {
    case ShardingType::kDataParallel:
      return BlockScope::kAll;
    case ShardingType::kRowWise:
      return confined ? BlockScope::kFixed : BlockScope::kAll;
    case ShardingType::kTableRowWise:
    case ShardingType::kGrid:
      return BlockScope::kNode;
    default:
      return BlockScope::kRank;
  }
}

// Ranks [end of the run before, end) of a block, each.
struct RankRun {
  int end = 0;
  ShardEstimate each = {};
};

// The sum of both, rank by rank.
std::vector<RankRun> merge(const std::vector<RankRun>& a, const std::vector<RankRun>& b) {
  std::vector<RankRun> sum;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    const int end = std::min(i->end, j->end);
    sum.push_back({end, i->each});
    sum.back().each.add(j->each);
    if (i->end == end) ++i;
    if (j->end == end) ++j;
  }
  return sum;
}

void set_costs(const std::vector<RankRun>& runs, PlannerEstimator estimator, Candidate& c) {
  c.time = runs.front().each;
  int begin = 0;
  for (const RankRun& run : runs) {
    c.memory.push_back({run.end, run.each.device_bytes, run.each.host_bytes});
    c.work.add(run.each, (run.end - begin) * c.num_blocks);
    if (run.each.total(estimator) == c.time.total(estimator)) c.full_ranks = run.end;
    begin = run.end;
  }
}

template <typename T>
bool contains(const std::vector<T>& values, T value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

bool may_be(const PlannerTable& table, ShardingType type, ComputeKernel kernel) {
  const bool replicated = type == ShardingType::kDataParallel;
  if (replicated != (kernel == ComputeKernel::kDense)) return false;
  const bool type_allowed = table.sharding_types.empty()
                                ? std::ranges::find(kDefaultTypes, type) != std::end(kDefaultTypes)
                                : contains(table.sharding_types, type);
  const bool kernel_allowed = table.kernels.empty() ? std::ranges::find(kDefaultKernels, kernel) !=
                                                          std::end(kDefaultKernels)
                                                    : contains(table.kernels, kernel);
  return type_allowed && kernel_allowed;
}

class ItemEnumerator {
 public:
  ItemEnumerator(const PlannerModel& model, const PlannerTopology& topology,
                 PlannerEstimator estimator)
      : model_(model), topology_(topology), estimator_(estimator) {}

  void enumerate(PlannerItem& item) const {
    const PlannerTable& first = model_.tables[item.tables.front()];
    item.ranks = confined_ranks(first);
    for (const int t : item.tables) {
      if (confined_ranks(model_.tables[t]) != item.ranks) {
        throw usage_error(fmt::format(
            "planner: table \"{}\": ranks: must be those of the other tables of group \"{}\"",
            model_.tables[t].name, first.group));
      }
    }
    constexpr ShardingType kTypes[] = {ShardingType::kDataParallel, ShardingType::kTableWise,
                                       ShardingType::kRowWise,      ShardingType::kColumnWise,
                                       ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
                                       ShardingType::kGrid};
    constexpr ComputeKernel kKernels[] = {ComputeKernel::kDense, ComputeKernel::kFused,
                                          ComputeKernel::kFusedUvm,
                                          ComputeKernel::kFusedUvmCaching};
    for (const ShardingType type : kTypes) {
      for (const ComputeKernel kernel : kKernels) add_candidate(item, type, kernel);
    }
    if (item.candidates.empty()) {
      throw usage_error(fmt::format(
          "planner: table \"{}\": no sharding type and kernel is left that it may have (its "
          "sharding_types, kernels, ranks or group exclude all): allow more",
          first.name));
    }
  }

 private:
  void add_candidate(PlannerItem& item, ShardingType type, ComputeKernel kernel) const {
    const bool confined = !item.ranks.empty();
    if (confined && type == ShardingType::kDataParallel) return;
    if (topology_.device == PlannerDevice::kCpu && kernel != ComputeKernel::kDense &&
        kernel != ComputeKernel::kFused) {
      return;
    }
    Candidate c{.type = type, .kernel = kernel, .scope = scope_of(type, confined)};
    if (c.scope == BlockScope::kNode && confined && !has_whole_node(item.ranks)) return;
    const int row_ranks = confined ? static_cast<int>(item.ranks.size()) : topology_.world_size;
    c.ranks_per_block = c.scope == BlockScope::kAll     ? topology_.world_size
                        : c.scope == BlockScope::kFixed ? row_ranks
                        : c.scope == BlockScope::kNode  ? topology_.ranks_per_node
                                                        : 1;
    std::vector<RankRun> runs;
    for (const int t : item.tables) {
      const PlannerTable& table = model_.tables[t];
      if (!may_be(table, type, kernel)) return;
      const ShardingOption option = sharding_option(table, type, kernel, topology_, row_ranks);
      if (item.tables.size() > 1 && option.num_column_blocks > 1) return;
      c.num_blocks = option.num_column_blocks;
      c.everywhere.add(
          estimate_everywhere(estimator_, table, option, topology_, model_.batch_size));
      auto more = runs_of(table, option, c.ranks_per_block);
      runs = runs.empty() ? std::move(more) : merge(runs, more);
    }
    set_costs(runs, estimator_, c);
    item.candidates.push_back(std::move(c));
  }

  // What the ranks of a block of `table` spend and hold.
  std::vector<RankRun> runs_of(const PlannerTable& table, const ShardingOption& option,
                               int num_ranks) const {
    std::vector<RankRun> runs;
    const auto add = [&](int end, std::int64_t rows) {
      if (end <= (runs.empty() ? 0 : runs.back().end)) return;
      runs.push_back(
          {end, estimate_shard(estimator_, table, option, rows, topology_, model_.batch_size)});
    };
    if (option.num_row_blocks == 1) {
      add(num_ranks, option.rows);
      return runs;
    }
    const int full = static_cast<int>(table.num_rows / option.rows);
    const std::int64_t rest = table.num_rows % option.rows;
    add(full, option.rows);
    if (rest > 0) add(full + 1, rest);
    add(num_ranks, 0);
    return runs;
  }

  bool has_whole_node(const std::vector<int>& ranks) const {
    int in_node = 0;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const bool same =
          i > 0 && ranks[i] / topology_.ranks_per_node == ranks[i - 1] / topology_.ranks_per_node;
      in_node = same ? in_node + 1 : 1;
      if (in_node == topology_.ranks_per_node) return true;
    }
    return false;
  }

  const PlannerModel& model_;
  const PlannerTopology& topology_;
  PlannerEstimator estimator_;
};

}  // namespace

std::vector<int> confined_ranks(const PlannerTable& table) {
  const std::set<int> ranks(table.ranks.begin(), table.ranks.end());
  return {ranks.begin(), ranks.end()};
}

PlannerProblem planner_problem(const PlannerModel& model, const PlannerTopology& topology,
                               PlannerEstimator estimator) {
  check_planner_input(model, topology);
  PlannerMemory usable = usable_memory(model, topology);
  PlannerProblem problem{.estimator = estimator,
                         .world_size = topology.world_size,
                         .ranks_per_node = topology.ranks_per_node,
                         .device_bytes = std::move(usable.device_bytes),
                         .host_bytes = std::move(usable.host_bytes)};
  std::map<std::string, std::size_t> groups;
  for (int t = 0; t < std::ssize(model.tables); ++t) {
    const std::string& group = model.tables[t].group;
    if (!group.empty()) {
      const auto [found, is_new] = groups.try_emplace(group, problem.items.size());
      if (!is_new) {
        problem.items[found->second].tables.push_back(t);
        continue;
      }
    }
    problem.items.push_back({.tables = {t}});
  }
  const ItemEnumerator enumerator(model, topology, estimator);
  for (PlannerItem& item : problem.items) enumerator.enumerate(item);
  return problem;
}

}  // namespace serrate
