#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "serrate/sharded_embedding.h"
#include "serrate/sharding_plan.h"

namespace serrate {

/// A feature looked up in a table, and how the table is cut into rows.
struct LookupRoute {
  std::string feature;
  std::int64_t table;                    ///< index of the table
  std::vector<std::int64_t> row_splits;  ///< [num_row_blocks + 1]
};

/// One shard as one lookup meets it: the ids of the lookup that are in row block `row_block` are
/// looked up in these columns by `rank`.
struct Piece {
  std::int64_t lookup;
  std::int64_t row_block;
  std::int64_t column_begin, column_end;
  int rank;
  std::int64_t shard;  ///< index among the shards of this rank; -1 for another rank's

  std::int64_t num_columns() const { return column_end - column_begin; }
};

/// An exchange of one value per row between two column blocks of a row block, one of them a shard
/// of this rank.
struct ColumnPeer {
  int rank;            ///< of the other block
  std::int64_t shard;  ///< index among the shards of this rank
};

/// A shard of this rank.
struct ShardPlace {
  std::int64_t table;
  Shard shard;
  bool replicated;                   ///< every rank has the same
  bool column_cut;                   ///< other shards have other columns of its rows
  std::vector<std::int64_t> pieces;  ///< indices in `replicated` or in what this rank serves
};

/// Who serves which lookup: what a plan means for this rank, worked out once.
struct Routing {
  std::vector<LookupRoute> lookups;
  std::vector<ShardPlace> shards;        ///< of this rank, in order of tables, rows, columns
  std::vector<Piece> pieces;             ///< by rank, then lookup, row block and column block
  std::vector<std::int64_t> rank_begin;  ///< [world_size + 1] into pieces
  std::vector<std::int64_t> by_lookup;   ///< pieces in order of lookup, row block, column block
  std::vector<Piece> replicated;         ///< of data-parallel tables, by lookup
  bool any_column_cut = false;           ///< of all tables: the same on every rank
  std::vector<ColumnPeer> columns_to;    ///< by rank of the destination, then as columns_from
  std::vector<ColumnPeer> columns_from;  ///< by destination, then source in order of columns

  std::span<const Piece> served_by(int rank) const {
    return std::span(pieces).subspan(rank_begin[rank], rank_begin[rank + 1] - rank_begin[rank]);
  }
};

Routing make_routing(std::span<const EmbeddingTable> tables, const ShardingPlan& plan, int rank);

}  // namespace serrate
