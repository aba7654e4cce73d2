#include "sharding/estimate/estimator.h"

#include <algorithm>

#include "sharding/estimate/serrate_estimator.h"
#include "sharding/estimate/torchrec_estimator.h"
#include "sharding/plan/shard_grid.h"

namespace serrate {
namespace {

// The narrowest block of at least `least` columns that cuts the table evenly; TorchRec's rule.
std::int64_t column_block(const PlannerTable& table) {
  for (std::int64_t d = table.min_columns; d < table.dim; ++d) {
    if (table.dim % d == 0 && d % 4 == 0) return d;
  }
  return table.dim;
}

}  // namespace

void ShardEstimate::add(const ShardEstimate& other, int times) {
  forward_compute += times * other.forward_compute;
  forward_comms += times * other.forward_comms;
  backward_compute += times * other.backward_compute;
  backward_comms += times * other.backward_comms;
  input_dist += times * other.input_dist;
  device_bytes += times * other.device_bytes;
  host_bytes += times * other.host_bytes;
  exchange_bytes += times * other.exchange_bytes;
}

ShardingOption sharding_option(const PlannerTable& table, ShardingType type, ComputeKernel kernel,
                               const PlannerTopology& topology, int row_ranks) {
  ShardingOption option{
      .type = type, .kernel = kernel, .columns = table.dim, .rows = table.num_rows};
  switch (type) {
    case ShardingType::kDataParallel:
    case ShardingType::kTableWise:
      break;
    case ShardingType::kRowWise:
      option.num_row_blocks = row_ranks;
      break;
    case ShardingType::kColumnWise:
    case ShardingType::kTableColumnWise:
      option.columns = column_block(table);
      break;
    case ShardingType::kTableRowWise:
      option.num_row_blocks = topology.ranks_per_node;
      break;
    case ShardingType::kGrid:
      option.columns = column_block(table);
      option.num_row_blocks = topology.ranks_per_node;
      break;
  }
  option.num_column_blocks = static_cast<int>(table.dim / option.columns);
  option.rows = divide_up(table.num_rows, option.num_row_blocks);
  return option;
}

std::int64_t rows_of(const PlannerTable& table, const ShardingOption& option, int row_block) {
  return std::clamp(table.num_rows - row_block * option.rows, std::int64_t{0}, option.rows);
}

ShardEstimate estimate_shard(PlannerEstimator estimator, const PlannerTable& table,
                             const ShardingOption& option, std::int64_t rows,
                             const PlannerTopology& topology, std::int64_t batch_size) {
  return estimator == PlannerEstimator::kTorchRec
             ? torchrec_estimate(table, option, rows, topology, batch_size)
             : serrate_estimate(table, option, rows, topology, batch_size);
}

ShardEstimate estimate_everywhere(PlannerEstimator estimator, const PlannerTable& table,
                                  const ShardingOption& option, const PlannerTopology& topology,
                                  std::int64_t batch_size) {
  if (estimator == PlannerEstimator::kTorchRec) return {};
  return serrate_everywhere(table, option, topology, batch_size);
}

PhaseTimes phase_times(PlannerEstimator estimator, ShardingType type, const ShardEstimate& e) {
  PhaseTimes times{};
  times[0] = e.forward_compute;
  times[1] = e.backward_compute;
  const bool together = estimator == PlannerEstimator::kSerrate;
  const int comms = 2 + (together ? 0 : 2 * static_cast<int>(type));
  times[comms] = e.forward_comms;
  times[comms + 1] = e.backward_comms;
  if (together) times[comms + 2] = e.input_dist;
  return times;
}

std::string phase_name(PlannerEstimator estimator, int phase) {
  if (phase == 0) return "forward compute";
  if (phase == 1) return "backward compute";
  if (phase == 4 && estimator == PlannerEstimator::kSerrate) return "input exchange";
  std::string direction = phase % 2 == 0 ? "forward exchange" : "backward exchange";
  if (estimator == PlannerEstimator::kSerrate) return direction;
  return to_string(static_cast<ShardingType>(phase / 2 - 1)) + " " + direction;
}

}  // namespace serrate
