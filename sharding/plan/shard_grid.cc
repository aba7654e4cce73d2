#include "sharding/plan/shard_grid.h"

namespace serrate {

ShardGrid shard_grid(const TableSharding& sharding) {
  const Shard& first = sharding.shards.front();
  ShardGrid grid{{first.row_begin}, {first.column_begin}};
  for (const Shard& s : sharding.shards) {
    if (s.column_begin == first.column_begin && s.row_begin == grid.row_splits.back()) {
      grid.row_splits.push_back(s.row_end);
    }
    if (s.row_begin == first.row_begin && s.column_begin == grid.column_splits.back()) {
      grid.column_splits.push_back(s.column_end);
    }
  }
  return grid;
}

bool through_nodes(const TableSharding& sharding, const ShardingPlan& plan) {
  const bool rows_in_node =
      sharding.type == ShardingType::kTableRowWise || sharding.type == ShardingType::kGrid;
  return rows_in_node && plan.ranks_per_node < plan.world_size &&
         shard_grid(sharding).num_row_blocks() > 1;
}

}  // namespace serrate
