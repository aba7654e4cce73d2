#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "serrate/planner.h"

namespace serrate {

/// Times in ms, memory in bytes, of one shard.
struct ShardEstimate {
  double forward_compute = 0;
  double forward_comms = 0;
  double backward_compute = 0;
  double backward_comms = 0;
  double input_dist = 0;  // TorchRec plans without it
  std::int64_t device_bytes = 0;
  std::int64_t host_bytes = 0;
  std::int64_t exchange_bytes = 0;  // of these, in buffers of the exchange (kSerrate)

  double total(PlannerEstimator estimator) const {
    return forward_compute + forward_comms + backward_compute + backward_comms +
           (estimator == PlannerEstimator::kSerrate ? input_dist : 0);
  }
  void add(const ShardEstimate& other, int times = 1);
};

/// One way to shard a table: the columns are cut into `num_column_blocks` blocks of `columns`,
/// and the rows of each into blocks of `rows` (the last ones may be shorter or empty), one for each
/// of `num_row_blocks` ranks. data_parallel has one block, the whole table, on every rank.
struct ShardingOption {
  ShardingType type = ShardingType::kTableWise;
  ComputeKernel kernel = ComputeKernel::kFused;
  std::int64_t columns = 0;
  std::int64_t rows = 0;
  int num_column_blocks = 1;
  int num_row_blocks = 1;
};

/// The option that TorchRec's enumerator makes of a type and a kernel. row_wise spreads over
/// `row_ranks` ranks: world_size, unless the table is confined to fewer.
ShardingOption sharding_option(const PlannerTable& table, ShardingType type, ComputeKernel kernel,
                               const PlannerTopology& topology, int row_ranks);

/// The rows that rank `row_block` of a block's ranks holds; 0 beyond the last row.
std::int64_t rows_of(const PlannerTable& table, const ShardingOption& option, int row_block);

/// One shard of `rows` rows.
ShardEstimate estimate_shard(PlannerEstimator estimator, const PlannerTable& table,
                             const ShardingOption& option, std::int64_t rows,
                             const PlannerTopology& topology, std::int64_t batch_size);

/// What every rank spends on a table for its own bags, whoever serves them; nothing by TorchRec's
/// model. Times alone.
ShardEstimate estimate_everywhere(PlannerEstimator estimator, const PlannerTable& table,
                                  const ShardingOption& option, const PlannerTopology& topology,
                                  std::int64_t batch_size);

/// A shard's times by phase of the critical path: forward compute, backward compute, then forward
/// and backward exchange of each sharding type (TorchRec), or of all types together and the input
/// exchange (ours). The others are 0.
constexpr int kMostPhases = 2 + 2 * 7;
using PhaseTimes = std::array<double, kMostPhases>;
PhaseTimes phase_times(PlannerEstimator estimator, ShardingType type, const ShardEstimate& e);
/// "forward compute", "row_wise backward exchange", "input exchange", ...
std::string phase_name(PlannerEstimator estimator, int phase);

}  // namespace serrate
