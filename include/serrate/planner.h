#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "serrate/embedding_table.h"
#include "serrate/sharding_plan.h"

namespace serrate {

/// One feature that looks a table up: bags of a sample, ids of a bag.
struct PlannerFeature {
  std::string name = {};  ///< for reports alone
  double pooling_factor = 1;
  double num_poolings = 1;
  std::int64_t batch_size = 0;  ///< samples per rank; 0: the model's
};

/// A table, its use, and what its sharding may be.
struct PlannerTable {
  std::string name;
  std::int64_t num_rows = 0;
  std::int64_t dim = 0;
  std::int64_t bytes_per_element = 4;
  bool pooled = true;
  bool weighted = false;
  std::vector<PlannerFeature> features = {};
  std::optional<SparseOptimizer> optimizer = {};
  /// How often ids repeat: the k-th most frequent one is looked up with a probability that is
  /// proportional to k^-zipf_exponent; 0: all alike. Frequent ids are anywhere in the table.
  double zipf_exponent = 0;

  std::vector<ShardingType> sharding_types = {};  ///< empty: any but grid, as in TorchRec
  std::vector<ComputeKernel> kernels = {};        ///< empty: dense and fused
  std::vector<int> ranks = {};                    ///< its shards may be on; empty: any
  std::int64_t min_columns = 128;                 ///< least width of a column shard
  std::string group = {};                         ///< tables of one group share their ranks
};

/// The most bytes and rows that are planned: sums and products of sizes stay exact in a double.
inline constexpr std::int64_t kMostPlannedBytes = std::int64_t{1} << 53;

struct PlannerModel {
  std::vector<PlannerTable> tables = {};
  std::int64_t batch_size = 512;  ///< samples per rank
  std::int64_t dense_bytes = 0;   ///< of the parameters that are no tables
};

enum class PlannerDevice { kCpu, kCuda };

/// The machines. Bandwidths in bytes per ms; the defaults are TorchRec's. TorchRec's model leaves
/// out latencies and the bandwidths of random rows.
struct PlannerTopology {
  PlannerDevice device = PlannerDevice::kCuda;
  int world_size = 1;
  int ranks_per_node = 1;
  /// Memory of each rank, [world_size]; device memory is 0 without devices.
  std::vector<std::int64_t> device_bytes = {};
  std::vector<std::int64_t> host_bytes = {};
  /// The share of the memory that tables are in first (the device's, or the host's without
  /// devices) that they may not use, as TorchRec's planner leaves 15 % to everything else.
  double reserve = 0;
  double device_bandwidth = 963146416.128;
  double host_bandwidth = 54760833.024;
  double host_link_bandwidth = 34359738.368;
  double intra_node_bandwidth = 644245094.4;
  double inter_node_bandwidth = 13421772.8;
  double intra_node_latency = 0;  ///< ms per message
  double inter_node_latency = 0;  ///< ms per message
  /// Bandwidth of rows read by a lookup, and of rows and gradients moved by an update, at random in
  /// the memory of the rank's device; 0: as that memory's.
  double lookup_bandwidth = 0;
  double update_bandwidth = 0;
  int num_nodes() const { return (world_size + ranks_per_node - 1) / ranks_per_node; }
};

/// Whose cost model a plan is made with. kTorchRec: that of TorchRec 1.9, to compare plans on the
/// peers' own terms. kSerrate: what this library's runtime does
/// (sharding/estimate/serrate_estimator.h).
enum class PlannerEstimator { kTorchRec, kSerrate };
/// "torchrec", "serrate"; from_string throws Error (usage) otherwise.
std::string to_string(PlannerEstimator estimator);
PlannerEstimator planner_estimator_from_string(const std::string& name);

/// What tables may use of each rank's memory, [world_size]: all but the reserve and, where the
/// tables are first, six times the dense parameters, as TorchRec's planner has it.
struct PlannerMemory {
  std::vector<std::int64_t> device_bytes = {};
  std::vector<std::int64_t> host_bytes = {};
};
PlannerMemory usable_memory(const PlannerModel& model, const PlannerTopology& topology);

/// Model and topology files (docs/planner.md). Reading is strict: what is unknown, missing, there
/// twice, of another type or out of range throws Error (usage) that names the path to the field,
/// e.g. "planner model: tables[2].dim: must be ...". Writing is canonical: the same model gives the
/// same bytes; a mean is written as the sum that costs the same, bf16 as fp16.
PlannerModel planner_model_from_json(const std::string& json);
std::string planner_model_to_json(const PlannerModel& model);
PlannerTopology planner_topology_from_json(const std::string& json);
std::string planner_topology_to_json(const PlannerTopology& topology);

/// What a plan is made cheap in. max_rank: the largest sum of shard times of a rank.
/// critical_path: the slowest rank's time of each phase, summed; all phases synchronise. They are
/// forward and backward compute and each direction of the exchanges: of each sharding type's by
/// TorchRec's model, of all tables' together by ours, which has the input exchange as well.
enum class PlannerObjective { kMaxRank, kCriticalPath };
std::string to_string(PlannerObjective objective);
PlannerObjective planner_objective_from_string(const std::string& name);

struct PlannerOptions {
  PlannerEstimator estimator = PlannerEstimator::kTorchRec;
  PlannerObjective objective = PlannerObjective::kMaxRank;
  /// The search ends by itself; a plan that was cut short here depends on the machine's speed. The
  /// bound is proved after the search: its time comes on top.
  std::chrono::milliseconds time_limit{60'000};
  std::uint64_t seed = 0;
};

/// How a table is sharded. `blocks` says where: for table_wise, column_wise and table_column_wise
/// the rank of each column block; for table_row_wise and grid the node of each column block;
/// nothing for data_parallel and row_wise, which are on all ranks (that the table may be on).
struct PlacedTable {
  ShardingType type = ShardingType::kTableWise;
  ComputeKernel kernel = ComputeKernel::kFused;
  std::vector<int> blocks = {};
  friend bool operator==(const PlacedTable&, const PlacedTable&) = default;
};

/// What a placement costs.
struct PlanCost {
  double max_rank = 0;                          ///< ms
  double critical_path = 0;                     ///< ms
  std::vector<std::int64_t> device_bytes = {};  ///< [world_size]
  std::vector<std::int64_t> host_bytes = {};    ///< [world_size]

  double of(PlannerObjective o) const {
    return o == PlannerObjective::kMaxRank ? max_rank : critical_path;
  }
};

struct PlannerResult {
  std::vector<PlacedTable> tables = {};  ///< as in the model; empty when there is no plan
  PlanCost cost = {};
  double bound = 0;  ///< no plan within the memory has a lower objective, in ms
  /// Why there is no plan. `proved`: there can be none; otherwise the search found none.
  std::string infeasible = {};
  bool proved_infeasible = false;

  bool feasible() const { return infeasible.empty(); }
  double objective(PlannerObjective o) const { return cost.of(o); }
  double gap(PlannerObjective o) const { return bound > 0 ? objective(o) / bound - 1 : 0; }
};

/// Where every table should live. Throws Error (usage) when model or topology make no sense.
PlannerResult plan_sharding(const PlannerModel& model, const PlannerTopology& topology,
                            const PlannerOptions& options);

/// The cost of any placement by one of the models. Throws Error (usage) when a table is not
/// placed as its type and constraints say.
PlanCost cost_of(const PlannerModel& model, const PlannerTopology& topology,
                 std::span<const PlacedTable> tables, PlannerEstimator estimator);

/// The shards of a placement, with kernels.
ShardingPlan to_sharding_plan(const PlannerModel& model, const PlannerTopology& topology,
                              std::span<const PlacedTable> tables);
/// The same of a plan that was found, with its provenance.
ShardingPlan to_sharding_plan(const PlannerModel& model, const PlannerTopology& topology,
                              const PlannerOptions& options, const PlannerResult& result);

/// Hash of the canonical file: what a plan's provenance says its inputs were.
std::string planner_hash(const PlannerModel& model);
std::string planner_hash(const PlannerTopology& topology);

/// What a rank's ShardedEmbedding and EmbeddingExchange allocate, in bytes.
struct RankMemory {
  std::int64_t weights = 0;
  std::int64_t optimizer = 0;
  std::int64_t exchange = 0;
  /// The next batch's ids (`EmbeddingInput`); not in total(), as evaluation has none.
  std::int64_t ahead = 0;
  std::int64_t total() const { return weights + optimizer + exchange; }
};

/// By rank, before any of it is allocated, under any plan for the model's tables: weights and state
/// to the byte, the exchange for batches whose bags are as long as the features say.
std::vector<RankMemory> predict_memory(const PlannerModel& model, const ShardingPlan& plan);

}  // namespace serrate
