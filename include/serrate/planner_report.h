#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "serrate/planner.h"

namespace serrate {

/// A part of a step that all ranks wait for the end of.
struct PhaseReport {
  std::string name = {};        ///< "forward compute", "row_wise backward exchange", ...
  std::vector<double> ms = {};  ///< [world_size]
  int slowest_rank = 0;
  double slowest_ms() const { return ms[slowest_rank]; }
};

/// What a table costs under a plan.
struct TableReport {
  std::string name = {};
  ShardingType type = ShardingType::kTableWise;
  ComputeKernel kernel = ComputeKernel::kFused;
  std::int64_t num_shards = 0;
  std::vector<int> ranks = {};    ///< that hold a shard, ascending
  double work_ms = 0;             ///< summed over all ranks
  double shard_ms = 0;            ///< of the longest shard
  std::int64_t device_bytes = 0;  ///< of all ranks
  std::int64_t host_bytes = 0;    ///< of all ranks
};

/// A plan's cost, part by part. Any valid plan for the model has one, also one that the planner
/// would not cut like that.
struct PlanReport {
  PlannerObjective objective = PlannerObjective::kMaxRank;
  PlannerEstimator estimator = PlannerEstimator::kTorchRec;
  PlannerDevice device = PlannerDevice::kCuda;
  int world_size = 1;
  int ranks_per_node = 1;
  std::int64_t batch_size = 0;
  PlanCost cost = {};
  double bound_ms = 0;  ///< no plan's objective is lower; 0: unknown
  PlannerMemory usable = {};
  std::vector<double> rank_ms = {};      ///< [world_size]; the largest is cost.max_rank
  std::vector<PhaseReport> phases = {};  ///< those that take time; cost.critical_path is their sum
  std::vector<TableReport> tables = {};  ///< as in the model
  /// Shards of each rank by sharding type, [world_size][7].
  std::vector<std::array<std::int64_t, 7>> shards = {};

  double objective_ms() const {
    return objective == PlannerObjective::kMaxRank ? cost.max_rank : cost.critical_path;
  }
  double gap() const { return bound_ms > 0 ? objective_ms() / bound_ms - 1 : 0; }
  /// The slowest rank's time in means of all ranks.
  double imbalance() const;
};
/// By the estimator and objective of `options`. The bound is that of the plan's provenance, if that
/// is of these inputs and options. Throws Error (usage) unless the plan covers the model's tables
/// on the topology's ranks.
PlanReport report_plan(const PlannerModel& model, const PlannerTopology& topology,
                       const ShardingPlan& plan, const PlannerOptions& options);

/// For people: the objective and its bound, phases, sharding types, ranks and tables; of many ranks
/// and tables those that matter most.
std::string to_text(const PlanReport& report);
/// For programs: all of it.
std::string to_json(const PlanReport& report);

/// Why a plan is not one for model and topology, a line each: a table that is not covered exactly
/// once, memory that a rank does not have, a constraint. Empty when it is valid.
std::vector<std::string> plan_violations(const PlannerModel& model, const PlannerTopology& topology,
                                         const ShardingPlan& plan, const PlannerOptions& options);

/// One way that a table could be sharded, beside a plan that has it in another or in this one.
struct OptionReport {
  ShardingType type = ShardingType::kTableWise;
  ComputeKernel kernel = ComputeKernel::kFused;
  bool possible = false;  ///< the rest is known; otherwise `why` says why not
  std::int64_t num_shards = 0;
  double shard_ms = 0;            ///< of the longest shard
  double work_ms = 0;             ///< summed over all ranks
  std::int64_t device_bytes = 0;  ///< most of a rank
  std::int64_t host_bytes = 0;    ///< most of a rank
  /// The plan's objective if this table (and its group) alone were sharded like this, where that is
  /// cheapest within the memory.
  double objective_ms = 0;  ///< 0: it fits nowhere
  bool chosen = false;
  std::string why = {};
};

struct TableExplanation {
  std::string table = {};
  std::vector<std::string> group = {};  ///< other tables that share its ranks
  PlannerObjective objective = PlannerObjective::kMaxRank;
  double objective_ms = 0;                 ///< of the plan
  std::vector<OptionReport> options = {};  ///< the chosen one, then the others, cheapest first
};
/// Every sharding type and kernel of a table: what it would cost and why the plan does not have it.
/// `report` is the plan's. Throws Error (usage) when there is no such table.
TableExplanation explain_table(const PlannerModel& model, const PlannerTopology& topology,
                               const ShardingPlan& plan, const PlanReport& report,
                               const std::string& table);
std::string to_text(const TableExplanation& explanation);

/// One page of HTML that needs no network: heat maps of rank x phase and rank x memory, tables to
/// sort and filter, and for the tables explained what else they could have been.
std::string to_html(const PlanReport& report, std::span<const TableExplanation> explanations);

/// Why the model's constraints keep a table from a sharding type; empty when they do not.
std::string why_excluded(const PlannerTable& table, ShardingType type);
/// The model with a table (and its group), or all of them, confined to one sharding type.
PlannerModel with_sharding_type(PlannerModel model, const std::string& table, ShardingType type);
PlannerModel with_sharding_type(PlannerModel model, ShardingType type);

struct NamedReport {
  std::string name;
  const PlanReport& report;
};
/// Two plans of the same tables side by side, and the tables that they shard otherwise.
std::string compare_text(const NamedReport& a, const NamedReport& b);

/// Changes model or topology as "name=value" says: hbm=40GiB, ranks=32, batch_size=256,
/// inter_bandwidth=25GB/s, ... (docs/planner.md). Throws Error (usage) naming what there is.
void apply_what_if(const std::string& change, PlannerModel& model, PlannerTopology& topology);

}  // namespace serrate
