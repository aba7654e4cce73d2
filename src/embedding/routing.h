#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "serrate/sharded_embedding.h"
#include "serrate/sharding_plan.h"
#include "src/core/sum_tree.h"

namespace serrate {

/// A feature looked up in a table, and how its ids are parted when they leave their rank.
struct LookupRoute {
  std::string feature;
  std::int64_t table;                    ///< index of the table
  std::vector<std::int64_t> row_splits;  ///< [num_row_blocks + 1]; one block if through nodes
  std::vector<std::int64_t> owner_splits =
      {};                 ///< those of the owners if through nodes, else empty
  bool unpooled = false;  ///< a row comes back for each id, to be pooled here
};

/// One shard as one lookup meets it: the ids of the lookup that are in row block `row_block` are
/// looked up in these columns by `rank`.
struct Piece {
  std::int64_t lookup;
  std::int64_t row_block;
  std::int64_t column_begin, column_end;
  int rank;               ///< of the group that exchanges the pieces
  std::int64_t shard;     ///< index among the shards of this rank; -1 for another rank's
  bool unpooled = false;  ///< a bag is one id, whose row is wanted as it is

  std::int64_t num_columns() const { return column_end - column_begin; }
};

/// The pieces that the ranks of a group ask one another for, all ranks for the same ones.
struct Hop {
  int rank = 0;                          ///< this one's in the group
  std::vector<Piece> pieces;             ///< by rank, then lookup, row block and column block
  std::vector<std::int64_t> rank_begin;  ///< [group size + 1] into pieces
  std::vector<std::int64_t> by_lookup;   ///< pieces in order of lookup, row block, column block

  /// What this rank is asked for, by every rank of the group.
  std::span<const Piece> served() const {
    return std::span(pieces).subspan(rank_begin[rank], rank_begin[rank + 1] - rank_begin[rank]);
  }
};

/// How ids get to a shard.
enum class Way {
  kReplicated,   ///< not at all: every rank has it
  kDirect,       ///< to the owner in one hop
  kThroughNode,  ///< to the owner's node, and on from there
};

/// An exchange of a few values per row between two column blocks of a row block, one of them a
/// shard of this rank.
struct ColumnPeer {
  int rank;            ///< of the other block
  std::int64_t shard;  ///< index among the shards of this rank
  LeafRange columns;   ///< of the sending block
};

/// A shard of this rank.
struct ShardPlace {
  std::int64_t table;
  Shard shard;
  Way way;
  bool column_cut;                   ///< other shards have other columns of its rows
  std::vector<std::int64_t> pieces;  ///< indices in `replicated` or in what this rank serves
};

/// Who serves which lookup: what a plan means for this rank, worked out once.
///
/// Where the rows of a table or of a column block are on several ranks of one node (and there are
/// several nodes), bags go through nodes: from rank j of their own node, whole, to rank j of the
/// node that has the rows (hop `to_node`, in the group of the j-th ranks of all nodes), which parts
/// them for the owners there (hop `in_node`, in the group of the node's ranks) and adds up the
/// owners' partial sums. So one row for each bag crosses between the nodes, not one from each
/// owner.
struct Routing {
  std::vector<LookupRoute> lookups;
  std::vector<ShardPlace> shards;  ///< of this rank, in order of tables, rows, columns
  std::vector<Piece> replicated;   ///< of data-parallel tables, by lookup
  Hop direct;                      ///< among all ranks
  Hop to_node;                     ///< a piece is a column block, with all of its rows
  /// Its lookup i * num_nodes + n is piece i of to_node.served(), as asked for from node n: so that
  /// its pieces are in order of the model's lookups and of the nodes that the bags come from.
  Hop in_node;
  std::vector<std::vector<std::int64_t>> row_splits;  ///< of the pieces of to_node.served()
  std::vector<std::vector<int>>
      row_owners;                        ///< of the pieces of to_node: by row block, in the node
  bool through_nodes = false;            ///< some table goes through nodes: the same on every rank
  bool any_column_cut = false;           ///< of all tables: the same on every rank
  std::vector<ColumnPeer> columns_to;    ///< by rank of the destination, then as columns_from
  std::vector<ColumnPeer> columns_from;  ///< by destination, then source in order of columns
};

Routing make_routing(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     SplitBags split_bags, int rank);

}  // namespace serrate
