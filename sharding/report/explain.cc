#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "sharding/estimate/plan_cost.h"
#include "sharding/files/quantity.h"
#include "sharding/planner/problem.h"
#include "sharding/report/constraints.h"
#include "sharding/report/report.h"

namespace serrate {
namespace {

using enum ShardingType;
constexpr ShardingType kTypes[] = {kDataParallel, kTableWise,       kRowWise, kColumnWise,
                                   kTableRowWise, kTableColumnWise, kGrid};
constexpr ComputeKernel kKernels[] = {ComputeKernel::kDense, ComputeKernel::kFused,
                                      ComputeKernel::kFusedUvm, ComputeKernel::kFusedUvmCaching};

class Explainer {
 public:
  Explainer(const PlannerModel& model, const PlannerTopology& topology, const ShardingPlan& plan,
            const PlanReport& report, const PlannerTable& table)
      : model_(model),
        topology_(topology),
        now_(report),
        table_(table),
        others_(model, topology, report.estimator) {
    std::unordered_map<std::string_view, const TableSharding*> shardings;
    for (const TableSharding& sharding : plan.tables) shardings[sharding.table] = &sharding;
    PlannerModel item{.batch_size = model.batch_size, .dense_bytes = model.dense_bytes};
    for (const PlannerTable& t : model.tables) {
      const TableSharding& sharding = *shardings.at(t.name);
      outlines_.push_back(outline_of(sharding));
      if (are_together(t, table)) {
        item.tables.push_back(t);
        item.tables.back().sharding_types.assign(std::begin(kTypes), std::end(kTypes));
        item.tables.back().kernels.assign(std::begin(kKernels), std::end(kKernels));
      } else {
        add_table(model, topology, t, sharding, report.estimator, others_);
      }
    }
    others_cost_ = others_.cost();
    problem_ = planner_problem(item, topology, report.estimator);
  }

  TableExplanation explain() {
    TableExplanation all{
        .table = table_.name, .objective = now_.objective, .objective_ms = now_.objective_ms()};
    for (const PlannerTable& t : model_.tables) {
      if (t.name != table_.name && are_together(t, table_)) all.group.push_back(t.name);
    }
    for (const ShardingType type : kTypes) {
      for (const ComputeKernel kernel : kKernels) {
        if ((type == kDataParallel) != (kernel == ComputeKernel::kDense)) continue;
        all.options.push_back(explain_option(type, kernel));
      }
    }
    std::ranges::stable_sort(all.options, {}, [](const OptionReport& o) {
      return std::tuple(!o.chosen, !o.possible, o.objective_ms == 0, o.objective_ms, o.work_ms);
    });
    return all;
  }

 private:
  OptionReport explain_option(ShardingType type, ComputeKernel kernel) {
    OptionReport option{.type = type, .kernel = kernel};
    const auto& candidates = problem_.items.front().candidates;
    const auto found = std::ranges::find_if(
        candidates, [&](const Candidate& c) { return c.type == type && c.kernel == kernel; });
    if (found == candidates.end()) {
      option.why = why_impossible(type, kernel);
      return option;
    }
    option.possible = true;
    option.num_shards = std::int64_t{found->num_blocks} * found->ranks_per_block;
    option.shard_ms = (found->time.total(now_.estimator)) + found->everywhere.total(now_.estimator);
    option.work_ms = found->work.total(now_.estimator);
    option.device_bytes = found->max_device_bytes();
    option.host_bytes = found->max_host_bytes();
    const TableReport& is = *std::ranges::find(now_.tables, table_.name, &TableReport::name);
    option.chosen = is.type == type && is.kernel == kernel;
    if (option.chosen) {
      option.objective_ms = now_.objective_ms();
      option.why = "chosen";
      return option;
    }
    judge(*found, option);
    return option;
  }

  std::string why_impossible(ShardingType type, ComputeKernel kernel) const {
    const bool is_host_kernel =
        kernel == ComputeKernel::kFusedUvm || kernel == ComputeKernel::kFusedUvmCaching;
    if (topology_.device == PlannerDevice::kCpu && is_host_kernel) {
      return "without devices all rows are in host memory anyway";
    }
    if (!table_.ranks.empty() && type == kDataParallel) return "constraints.ranks names ranks";
    if (!table_.ranks.empty() && (type == kTableRowWise || type == kGrid)) {
      return "constraints.ranks names no whole node";
    }
    return "a table of a group is not cut into columns";
  }

  // Replaces the tables in the plan and sees what becomes of it.
  void judge(const Candidate& candidate, OptionReport& option) {
    const auto blocks = place(candidate);
    std::string& why = option.why;
    if (blocks.empty() && has_blocks(candidate)) {
      why = fmt::format("does not fit: no {} has {} left",
                        candidate.scope == BlockScope::kNode ? "node" : "rank",
                        describe_bytes(candidate));
      return;
    }
    const PlacedTable placed{candidate.type, candidate.kernel, blocks};
    PlanCostSum sum = others_;
    std::vector<PlacedTable> outlines = outlines_;
    for (std::size_t t = 0; t < model_.tables.size(); ++t) {
      if (!are_together(model_.tables[t], table_)) continue;
      sum.add(model_.tables[t], placed);
      outlines[t] = placed;
    }
    if (now_.estimator == PlannerEstimator::kSerrate) sum.add_latency(outlines);
    const PlanCost cost = sum.cost();
    option.objective_ms =
        now_.objective == PlannerObjective::kMaxRank ? cost.max_rank : cost.critical_path;
    why = why_lost(sum, cost, option.objective_ms);
    std::string excluded = why_excluded(table_, candidate.type);
    if (excluded.empty()) excluded = why_excluded(table_, candidate.kernel);
    if (!excluded.empty()) {
      why = fmt::format("not allowed: {} ({})", excluded, why);
    } else if (why.starts_with('-')) {
      why += "; the search missed it";
    }
  }

  static bool has_blocks(const Candidate& c) {
    return c.scope == BlockScope::kRank || c.scope == BlockScope::kNode;
  }
  std::string describe_bytes(const Candidate& c) const {
    return c.max_device_bytes() > 0 && c.max_host_bytes() > 0
               ? fmt::format("{} of device and {} of host memory",
                             format_bytes(c.max_device_bytes()), format_bytes(c.max_host_bytes()))
           : c.max_device_bytes() > 0
               ? fmt::format("{} of device memory", format_bytes(c.max_device_bytes()))
               : fmt::format("{} of host memory", format_bytes(c.max_host_bytes()));
  }

  std::string why_lost(const PlanCostSum& sum, const PlanCost& cost, double objective_ms) const {
    int slowest = 0;
    for (int rank = 0; rank < topology_.world_size; ++rank) {
      const std::int64_t device = cost.device_bytes[rank] - now_.usable.device_bytes[rank];
      const std::int64_t host = cost.host_bytes[rank] - now_.usable.host_bytes[rank];
      if (device > 0 || host > 0) {
        return fmt::format("does not fit: rank {} would lack {} of {} memory", rank,
                           format_bytes(std::max(device, host)), device > host ? "device" : "host");
      }
      if (sum.rank_ms(rank) > sum.rank_ms(slowest)) slowest = rank;
    }
    const double change = 100 * (objective_ms / now_.objective_ms() - 1);
    const std::string ends =
        now_.objective == PlannerObjective::kMaxRank
            ? fmt::format("rank {} would take {:.4f} ms", slowest, objective_ms)
            : fmt::format("the phases would take {:.4f} ms", objective_ms);
    if (change > 1e-7) return fmt::format("+{:.2f} %: {}", change, ends);
    if (change < -1e-7) return fmt::format("{:.2f} %: {}", change, ends);
    return "as good: something else is the slowest";
  }

  // The rank or node of each block that has the least time so far and the memory left; empty when
  // there is none.
  std::vector<int> place(const Candidate& c) const {
    if (!has_blocks(c)) return {};
    const int per_place = c.scope == BlockScope::kNode ? topology_.ranks_per_node : 1;
    std::vector<double> ms;
    for (int rank = 0; rank < topology_.world_size; ++rank) ms.push_back(others_.rank_ms(rank));
    PlanCost used = others_cost_;
    std::vector<int> blocks;
    for (int block = 0; block < c.num_blocks; ++block) {
      int best = -1;
      double least = 0;
      for (int place = 0; place < topology_.world_size / per_place; ++place) {
        const int first = place * per_place;
        if (!has_room(c, first, per_place, used)) continue;
        const double longest =
            *std::max_element(ms.begin() + first, ms.begin() + first + per_place);
        if (best >= 0 && longest >= least) continue;
        best = place;
        least = longest;
      }
      if (best < 0) return {};
      blocks.push_back(best);
      for (int i = 0; i < per_place; ++i) {
        const int rank = best * per_place + i;
        const MemoryRun& memory = memory_of(c, i);
        ms[rank] += c.time.total(now_.estimator);
        used.device_bytes[rank] += memory.device_bytes;
        used.host_bytes[rank] += memory.host_bytes;
      }
    }
    return blocks;
  }

  static const MemoryRun& memory_of(const Candidate& c, int rank_in_block) {
    return *std::ranges::find_if(c.memory,
                                 [&](const MemoryRun& run) { return rank_in_block < run.end; });
  }
  bool has_room(const Candidate& c, int first, int count, const PlanCost& used) const {
    const auto& allowed = problem_.items.front().ranks;
    for (int i = 0; i < count; ++i) {
      const int rank = first + i;
      if (!allowed.empty() && !std::ranges::binary_search(allowed, rank)) return false;
      const MemoryRun& memory = memory_of(c, i);
      if (used.device_bytes[rank] + memory.device_bytes > problem_.device_bytes[rank] ||
          used.host_bytes[rank] + memory.host_bytes > problem_.host_bytes[rank]) {
        return false;
      }
    }
    return true;
  }

  const PlannerModel& model_;
  const PlannerTopology& topology_;
  const PlanReport& now_;
  const PlannerTable& table_;
  PlanCostSum others_;  // the tables that stay
  PlanCost others_cost_;
  std::vector<PlacedTable> outlines_;  // of the plan
  PlannerProblem problem_;             // of the table and its group alone
};

}  // namespace

TableExplanation explain_table(const PlannerModel& model, const PlannerTopology& topology,
                               const ShardingPlan& plan, const PlanReport& report,
                               const std::string& table) {
  return Explainer(model, topology, plan, report, find_table(model, table)).explain();
}

}  // namespace serrate
