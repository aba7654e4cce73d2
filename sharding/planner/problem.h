#pragma once

#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "serrate/planner.h"
#include "sharding/estimate/estimator.h"

namespace serrate {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

inline double sum_of(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0.0);
}

/// What one block of a candidate is put on.
enum class BlockScope {
  kRank,   // one rank
  kNode,   // every rank of a node
  kFixed,  // the ranks that its tables are confined to
  kAll,    // every rank
};

/// Memory of ranks [end of the run before, end) of a block, each.
struct MemoryRun {
  int end = 0;
  std::int64_t device_bytes = 0;
  std::int64_t host_bytes = 0;
  friend bool operator==(const MemoryRun&, const MemoryRun&) = default;
};

/// One way to shard an item: equal blocks, of which the last ranks may hold fewer rows, or none.
/// `time` is the first rank's, which is the longest.
struct Candidate {
  ShardingType type = ShardingType::kTableWise;
  ComputeKernel kernel = ComputeKernel::kFused;
  BlockScope scope = BlockScope::kRank;
  int num_blocks = 1;
  int ranks_per_block = 1;
  int full_ranks = 1;             // of a block that take as long as the first
  ShardEstimate time = {};        // of the first rank of a block
  ShardEstimate work = {};        // of all ranks and blocks together
  ShardEstimate everywhere = {};  // on top, of every rank of the world
  std::vector<MemoryRun> memory = {};

  std::int64_t total_device_bytes() const { return work.device_bytes; }
  std::int64_t total_host_bytes() const { return work.host_bytes; }
  std::int64_t max_device_bytes() const { return memory.front().device_bytes; }
  std::int64_t max_host_bytes() const { return memory.front().host_bytes; }
};

/// Tables that are placed as one: a table, or the tables of a group.
struct PlannerItem {
  std::vector<int> tables = {};
  std::vector<int> ranks = {};  // it may be on; sorted; empty: any
  std::vector<Candidate> candidates = {};
};

/// What the search, the bound and the reports see of model and topology.
struct PlannerProblem {
  PlannerEstimator estimator = PlannerEstimator::kTorchRec;
  int world_size = 1;
  int ranks_per_node = 1;
  std::vector<std::int64_t> device_bytes = {};  // [world_size]
  std::vector<std::int64_t> host_bytes = {};    // [world_size]
  std::vector<PlannerItem> items = {};

  int num_nodes() const { return world_size / ranks_per_node; }
};

/// All ways to shard each item. Throws Error (usage), naming the field, when model or topology
/// make no sense or a table is left with no way.
PlannerProblem planner_problem(const PlannerModel& model, const PlannerTopology& topology,
                               PlannerEstimator estimator);

/// The ranks that a table's row_wise shards are on; empty when it may be on any.
std::vector<int> confined_ranks(const PlannerTable& table);

}  // namespace serrate
