#include "sharding/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string_view>
#include <unordered_map>

#include "serrate/error.h"
#include "sharding/plan/shard_grid.h"
#include "sharding/planner/problem.h"

namespace serrate {
namespace {

ComputeKernel kernel_of(const TableSharding& sharding) {
  return sharding.kernel.value_or(
      sharding.type == ShardingType::kDataParallel ? ComputeKernel::kDense : ComputeKernel::kFused);
}

// The ranks that the planner would spread the rows of a column block over, one of which is `rank`.
std::vector<int> even_ranks(const PlannerTable& table, ShardingType type,
                            const PlannerTopology& topology, int rank) {
  int first = 0, count = 1;
  switch (type) {
    case ShardingType::kRowWise:
      if (const auto confined = confined_ranks(table); !confined.empty()) return confined;
      count = topology.world_size;
      break;
    case ShardingType::kTableRowWise:
    case ShardingType::kGrid:
      count = topology.ranks_per_node;
      first = rank / count * count;
      break;
    default:
      first = rank;
  }
  std::vector<int> ranks(count);
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

// The shards of one table, as the estimators see them.
class TableCuts {
 public:
  TableCuts(const PlannerTable& table, const PlannerTopology& topology,
            const TableSharding& sharding)
      : table_(table), topology_(topology), sharding_(sharding), grid_(shard_grid(sharding)) {}

  int num_column_blocks() const { return static_cast<int>(grid_.num_column_blocks()); }

  ShardingOption option(int column_block) const {
    return {.type = sharding_.type,
            .kernel = kernel_of(sharding_),
            .columns = grid_.column_splits[column_block + 1] - grid_.column_splits[column_block],
            .rows = grid_.row_splits[1],
            .num_column_blocks = num_column_blocks(),
            .num_row_blocks =
                static_cast<int>(grid_.num_row_blocks() + std::ssize(empty_ranks(column_block)))};
  }
  // Calls visit(rank, rows); ranks that a block of the planner's would leave empty have 0 rows.
  template <typename Visit>
  void for_each_shard(int column_block, const Visit& visit) const {
    if (sharding_.type == ShardingType::kDataParallel) {
      for (const Shard& s : sharding_.shards) visit(s.rank, s.num_rows());
      return;
    }
    for (int row = 0; row < grid_.num_row_blocks(); ++row) {
      const Shard& s = shard(row, column_block);
      visit(s.rank, s.num_rows());
    }
    for (const int rank : empty_ranks(column_block)) visit(rank, 0);
  }

 private:
  const Shard& shard(std::int64_t row_block, int column_block) const {
    return sharding_.shards[row_block * grid_.num_column_blocks() + column_block];
  }
  // A plan file has no shards without rows. When rows are cut as the planner cuts them for more
  // ranks than have any, the others are its empty ones, to which TorchRec's model gives time.
  std::vector<int> empty_ranks(int column_block) const {
    if (sharding_.type == ShardingType::kDataParallel) return {};
    const std::int64_t num_row_blocks = grid_.num_row_blocks();
    std::vector<int> ranks =
        even_ranks(table_, sharding_.type, topology_, shard(0, column_block).rank);
    const auto spread = std::ssize(ranks);
    const std::int64_t block = (table_.num_rows + spread - 1) / spread;
    if (grid_.row_splits[1] != block) return {};
    for (std::int64_t row = 0; row < num_row_blocks; ++row) {
      if (row + 1 < num_row_blocks && grid_.row_splits[row + 1] != (row + 1) * block) return {};
      if (std::erase(ranks, shard(row, column_block).rank) != 1) return {};
    }
    return ranks;
  }

  const PlannerTable& table_;
  const PlannerTopology& topology_;
  const TableSharding& sharding_;
  ShardGrid grid_;
};

std::vector<PhaseReport> phases_of(const PlanCostSum& sum, PlannerEstimator estimator,
                                   int world_size) {
  std::vector<PhaseReport> phases;
  for (int k = 0; k < kMostPhases; ++k) {
    PhaseReport phase{.name = phase_name(estimator, k)};
    for (int rank = 0; rank < world_size; ++rank) phase.ms.push_back(sum.phase_ms(rank)[k]);
    phase.slowest_rank = static_cast<int>(std::ranges::max_element(phase.ms) - phase.ms.begin());
    if (phase.slowest_ms() > 0) phases.push_back(std::move(phase));
  }
  if (sum.latency_ms() > 0) {
    phases.push_back(
        {.name = "waiting for messages", .ms = std::vector<double>(world_size, sum.latency_ms())});
  }
  return phases;
}

void check_covers(const PlannerModel& model, const PlannerTopology& topology,
                  const ShardingPlan& plan) {
  std::vector<EmbeddingTable> tables;
  for (const PlannerTable& table : model.tables) {
    tables.push_back({.name = table.name, .num_rows = table.num_rows, .dim = table.dim});
  }
  validate_plan(plan, tables, topology.world_size);
  if (plan.ranks_per_node > 0 && plan.ranks_per_node != topology.ranks_per_node) {
    throw usage_error(fmt::format("sharding plan: ranks_per_node: is {}, but nodes have {} ranks",
                                  plan.ranks_per_node, topology.ranks_per_node));
  }
}

double known_bound(const PlannerModel& model, const PlannerTopology& topology,
                   const ShardingPlan& plan, const PlannerOptions& options) {
  const auto& from = plan.provenance;
  const bool is_of_these = from && from->objective == to_string(options.objective) &&
                           from->estimator == to_string(options.estimator) &&
                           from->model == planner_hash(model) &&
                           from->topology == planner_hash(topology);
  return is_of_these ? from->bound_ms : 0;
}

}  // namespace

TableReport add_table(const PlannerModel& model, const PlannerTopology& topology,
                      const PlannerTable& table, const TableSharding& sharding,
                      PlannerEstimator estimator, PlanCostSum& sum) {
  const TableCuts cuts(table, topology, sharding);
  TableReport report{.name = table.name,
                     .type = sharding.type,
                     .kernel = kernel_of(sharding),
                     .num_shards = std::ssize(sharding.shards)};
  const double everywhere = sum.add_everywhere(table, cuts.option(0)).total(estimator);
  report.work_ms = everywhere * topology.world_size;
  report.shard_ms = everywhere;
  std::set<int> ranks;
  for (int block = 0; block < cuts.num_column_blocks(); ++block) {
    const ShardingOption option = cuts.option(block);
    std::int64_t rows = -1;
    ShardEstimate e;
    cuts.for_each_shard(block, [&](int rank, std::int64_t rows_here) {
      if (rows_here != rows) {
        rows = rows_here;
        e = estimate_shard(estimator, table, option, rows, topology, model.batch_size);
      }
      sum.add_shard(option.type, e, rank);
      if (rows > 0) ranks.insert(rank);
      report.work_ms += e.total(estimator);
      report.shard_ms = std::max(report.shard_ms, everywhere + e.total(estimator));
      report.device_bytes += e.device_bytes;
      report.host_bytes += e.host_bytes;
    });
  }
  report.ranks.assign(ranks.begin(), ranks.end());
  return report;
}

PlacedTable outline_of(const TableSharding& sharding) {
  const auto blocks = static_cast<std::size_t>(shard_grid(sharding).num_column_blocks());
  return {sharding.type, kernel_of(sharding), std::vector<int>(blocks)};
}

double PlanReport::imbalance() const {
  const double sum = std::accumulate(rank_ms.begin(), rank_ms.end(), 0.0);
  return sum > 0 ? cost.max_rank * static_cast<double>(rank_ms.size()) / sum : 1;
}

PlanReport report_plan(const PlannerModel& model, const PlannerTopology& topology,
                       const ShardingPlan& plan, const PlannerOptions& options) {
  check_covers(model, topology, plan);
  PlanReport report{.objective = options.objective,
                    .estimator = options.estimator,
                    .device = topology.device,
                    .world_size = topology.world_size,
                    .ranks_per_node = topology.ranks_per_node,
                    .batch_size = model.batch_size,
                    .bound_ms = known_bound(model, topology, plan, options),
                    .usable = usable_memory(model, topology)};
  report.shards.resize(topology.world_size);
  std::unordered_map<std::string_view, const TableSharding*> shardings;
  for (const TableSharding& sharding : plan.tables) shardings[sharding.table] = &sharding;
  PlanCostSum sum(model, topology, options.estimator);
  std::vector<PlacedTable> placed;
  for (const PlannerTable& table : model.tables) {
    const TableSharding& sharding = *shardings.at(table.name);
    report.tables.push_back(add_table(model, topology, table, sharding, options.estimator, sum));
    placed.push_back(outline_of(sharding));
    for (const Shard& s : sharding.shards) {
      ++report.shards[s.rank][static_cast<std::size_t>(sharding.type)];
    }
  }
  if (options.estimator == PlannerEstimator::kSerrate) {
    sum.add_latency(placed);
    sum.add_exchange_memory(plan);
  }
  report.cost = sum.cost();
  for (int rank = 0; rank < topology.world_size; ++rank) {
    report.rank_ms.push_back(sum.rank_ms(rank));
  }
  report.phases = phases_of(sum, options.estimator, topology.world_size);
  return report;
}

}  // namespace serrate
