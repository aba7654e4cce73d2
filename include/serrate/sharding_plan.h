#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serrate/embedding_table.h"

namespace serrate {

/// As TorchRec's. table_row_wise: rows over the ranks of one node. table_column_wise: column blocks
/// on ranks of one node. grid: each column block's rows over the ranks of one node.
enum class ShardingType {
  kDataParallel,
  kTableWise,
  kRowWise,
  kColumnWise,
  kTableRowWise,
  kTableColumnWise,
  kGrid
};

/// "data_parallel", "table_wise", "row_wise", "column_wise", "table_row_wise",
/// "table_column_wise", "grid"; from_string throws Error (usage) otherwise.
std::string to_string(ShardingType type);
ShardingType sharding_type_from_string(const std::string& name);
/// Whether a plan with the type needs ranks_per_node: table_row_wise, table_column_wise, grid.
bool needs_nodes(ShardingType type);

/// Where a shard's rows are and who reads them, as TorchRec's EmbeddingComputeKernel. dense: the
/// replicas of data_parallel. fused: rows in the memory of the rank's device. fused_uvm: rows in
/// host memory, read over the link. fused_uvm_caching: as fused_uvm, with a fifth of the rows
/// cached on the device.
enum class ComputeKernel { kDense, kFused, kFusedUvm, kFusedUvmCaching };
/// "dense", "fused", "fused_uvm", "fused_uvm_caching"; from_string throws Error (usage) otherwise.
std::string to_string(ComputeKernel kernel);
ComputeKernel compute_kernel_from_string(const std::string& name);

/// Rows [row_begin, row_end) x columns [column_begin, column_end) of a table, on one rank.
struct Shard {
  std::int64_t row_begin = 0, row_end = 0;
  std::int64_t column_begin = 0, column_end = 0;
  int rank = 0;
  std::int64_t num_rows() const { return row_end - row_begin; }
  std::int64_t num_columns() const { return column_end - column_begin; }
  friend bool operator==(const Shard&, const Shard&) = default;
};

/// Where one table lives. data_parallel: one shard of the whole table for every rank. Otherwise
/// the shards cover each row and column exactly once; shards are ordered by row, then column, and
/// form a grid: every row block is cut at the same columns.
struct TableSharding {
  std::string table;
  ShardingType type = ShardingType::kTableWise;
  std::vector<Shard> shards = {};
  std::optional<ComputeKernel> kernel = {};  ///< none: dense when data_parallel, fused otherwise
  friend bool operator==(const TableSharding&, const TableSharding&) = default;
};

/// Where a plan comes from.
struct PlanProvenance {
  std::string serrate;  ///< version of the library that made it
  /// Hashes of the canonical model and topology (serrate/planner.h), "fnv1a64:" and 16 digits.
  std::string model, topology;
  std::string objective, estimator;  ///< by name
  double cost_ms = 0;                ///< of the objective
  double bound_ms = 0;               ///< no plan costs less; 0: unknown
  std::uint64_t seed = 0;
  friend bool operator==(const PlanProvenance&, const PlanProvenance&) = default;
};

struct ShardingPlan {
  int world_size = 1;
  std::vector<TableSharding> tables = {};
  /// Node n is ranks [n, n + 1) * ranks_per_node; 0 when no table is sharded by nodes.
  int ranks_per_node = 0;
  std::optional<PlanProvenance> provenance = {};
  friend bool operator==(const ShardingPlan&, const ShardingPlan&) = default;
};

/// Where `table` lives; throws Error (usage) when the plan does not have it.
const TableSharding& sharding_of(const ShardingPlan& plan, std::string_view table);

/// Canonical JSON (docs/plan_format.md): the same plan gives the same bytes.
std::string plan_to_json(const ShardingPlan& plan);
/// Strict: unknown, missing or duplicate fields, wrong types and overflow throw Error (usage) that
/// names the path to the field, e.g. "tables[2].shards[0].rank".
ShardingPlan plan_from_json(const std::string& json);
/// Throws Error (usage), naming table and field, unless the plan covers exactly these tables, each
/// exactly once, with ranks in [0, world_size).
void validate_plan(const ShardingPlan& plan, std::span<const EmbeddingTable> tables,
                   int world_size);

/// One table under one sharding, its shards on ranks in turn from `first_rank` on: table_wise one,
/// row_wise blocks of ceil(rows / world_size) rows, column_wise world_size column blocks of
/// multiples of 4 columns (fewer when dim is small), data_parallel everywhere. Types that need
/// nodes stay on the node of `first_rank`: table_row_wise and table_column_wise cut the table by
/// ranks_per_node; grid has a column block for each node, from that one on, each cut into
/// ranks_per_node row blocks. They throw Error (usage) unless ranks_per_node divides world_size.
TableSharding shard_table(const EmbeddingTable& table, ShardingType type, int world_size,
                          int first_rank = 0, int ranks_per_node = 0);
/// The plan used when none is given: tables of fewer rows than a batch touches anyway (4,096)
/// are data_parallel; larger ones row_wise, so that every rank holds and serves an equal share.
ShardingPlan default_plan(std::span<const EmbeddingTable> tables, int world_size);

}  // namespace serrate
