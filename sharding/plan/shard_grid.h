#pragma once

#include <cstdint>
#include <vector>

#include "serrate/sharding_plan.h"

namespace serrate {

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// The cuts of a table. Shard (i, j) of the grid is shards[i * num_column_blocks() + j], rows
/// [row_splits[i], row_splits[i + 1]) x columns [column_splits[j], column_splits[j + 1]).
struct ShardGrid {
  std::vector<std::int64_t> row_splits;
  std::vector<std::int64_t> column_splits;

  std::int64_t num_row_blocks() const { return std::ssize(row_splits) - 1; }
  std::int64_t num_column_blocks() const { return std::ssize(column_splits) - 1; }
};

/// The grid of a valid plan's table; of one block when it is data_parallel.
ShardGrid shard_grid(const TableSharding& sharding);

/// Whether what a valid plan's table exchanges goes through nodes (src/embedding/routing.h): by its
/// type, the rows of a column block are on the ranks of a node, and there are other nodes.
bool through_nodes(const TableSharding& sharding, const ShardingPlan& plan);

}  // namespace serrate
