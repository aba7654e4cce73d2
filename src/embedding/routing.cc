#include "src/embedding/routing.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "sharding/plan/shard_grid.h"

namespace serrate {
namespace {

// Every column block of a row block to every one, itself included.
void add_column_peers(const TableSharding& sharding, const ShardGrid& grid,
                      std::span<const std::int64_t> local, Routing& routing) {
  const std::int64_t columns = grid.num_column_blocks();
  for (std::int64_t row = 0; row < grid.num_row_blocks(); ++row) {
    for (std::int64_t to = row * columns; to < (row + 1) * columns; ++to) {
      for (std::int64_t from = row * columns; from < (row + 1) * columns; ++from) {
        const LeafRange sent{sharding.shards[from].column_begin, sharding.shards[from].column_end};
        if (local[from] >= 0) {
          routing.columns_to.push_back({sharding.shards[to].rank, local[from], sent});
        }
        if (local[to] >= 0) {
          routing.columns_from.push_back({sharding.shards[from].rank, local[to], sent});
        }
      }
    }
  }
}

void order_pieces(Hop& hop, int rank, int num_ranks) {
  hop.rank = rank;
  std::stable_sort(hop.pieces.begin(), hop.pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.rank < b.rank; });
  hop.rank_begin.assign(num_ranks + 1, 0);
  for (const Piece& piece : hop.pieces) ++hop.rank_begin[piece.rank + 1];
  std::partial_sum(hop.rank_begin.begin(), hop.rank_begin.end(), hop.rank_begin.begin());
  hop.by_lookup.resize(hop.pieces.size());
  std::iota(hop.by_lookup.begin(), hop.by_lookup.end(), 0);
  const auto key = [&](std::int64_t i) {
    const Piece& p = hop.pieces[i];
    return std::tuple(p.lookup, p.row_block, p.column_begin);
  };
  std::sort(hop.by_lookup.begin(), hop.by_lookup.end(),
            [&](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
}

void list_pieces_of_shards(std::span<const Piece> pieces, std::vector<ShardPlace>& shards) {
  for (std::int64_t i = 0; i < std::ssize(pieces); ++i) {
    shards[pieces[i].shard].pieces.push_back(i);
  }
}

// The nodes of a plan as one rank sees them.
struct Nodes {
  int rank;
  int ranks_per_node;
  int num_nodes;

  int node_of(int other) const { return other / ranks_per_node; }
  int in_node(int other) const { return other % ranks_per_node; }
};

Way way_of(const TableSharding& sharding, const ShardingPlan& plan) {
  if (sharding.type == ShardingType::kDataParallel) return Way::kReplicated;
  return through_nodes(sharding, plan) ? Way::kThroughNode : Way::kDirect;
}

// The index of each shard among those of this rank, or -1.
std::vector<std::int64_t> add_shards(std::int64_t table, const TableSharding& sharding,
                                     const ShardGrid& grid, Way way, int rank, Routing& routing) {
  std::vector<std::int64_t> local(sharding.shards.size(), -1);
  for (std::size_t i = 0; i < sharding.shards.size(); ++i) {
    if (sharding.shards[i].rank != rank) continue;
    local[i] = std::ssize(routing.shards);
    routing.shards.push_back({table, sharding.shards[i], way, grid.num_column_blocks() > 1, {}});
  }
  return local;
}

void add_pieces(std::int64_t lookup, const TableSharding& sharding, const ShardGrid& grid,
                std::span<const std::int64_t> local, Routing& routing) {
  const bool unpooled = routing.lookups[lookup].unpooled;
  for (std::int64_t i = 0; i < std::ssize(sharding.shards); ++i) {
    const Shard& s = sharding.shards[i];
    const std::int64_t row_block = i / grid.num_column_blocks();
    routing.direct.pieces.push_back(
        {lookup, row_block, s.column_begin, s.column_end, s.rank, local[i], unpooled});
  }
}

void add_pieces_through_nodes(std::int64_t lookup, const TableSharding& sharding,
                              const ShardGrid& grid, std::span<const std::int64_t> local,
                              const Nodes& nodes, Routing& routing) {
  const std::int64_t columns = grid.num_column_blocks();
  const bool unpooled = routing.lookups[lookup].unpooled;
  for (std::int64_t column = 0; column < columns; ++column) {
    const Shard& top = sharding.shards[column];
    const int node = nodes.node_of(top.rank);
    routing.to_node.pieces.push_back({lookup, 0, top.column_begin, top.column_end, node, -1});
    if (node != nodes.node_of(nodes.rank)) continue;
    const std::int64_t first = std::ssize(routing.row_splits) * nodes.num_nodes;
    routing.row_splits.push_back(grid.row_splits);
    for (std::int64_t from = first; from < first + nodes.num_nodes; ++from) {
      for (std::int64_t row = 0; row < grid.num_row_blocks(); ++row) {
        const std::int64_t i = row * columns + column;
        routing.in_node.pieces.push_back({from, row, 0, top.num_columns(),
                                          nodes.in_node(sharding.shards[i].rank), local[i],
                                          unpooled});
      }
    }
  }
}

void add_table(std::int64_t t, const EmbeddingTable& table, const ShardingPlan& plan,
               SplitBags split_bags, const Nodes& nodes, Routing& routing) {
  const TableSharding& sharding = sharding_of(plan, table.name);
  const ShardGrid grid = shard_grid(sharding);
  const Way way = way_of(sharding, plan);
  const auto local = add_shards(t, sharding, grid, way, nodes.rank, routing);
  if (grid.num_column_blocks() > 1) {
    routing.any_column_cut = true;
    add_column_peers(sharding, grid, local, routing);
  }
  for (const std::string& feature : table.features) {
    const std::int64_t lookup = std::ssize(routing.lookups);
    const bool unpooled = split_bags == SplitBags::kIdOrder && grid.num_row_blocks() > 1;
    routing.lookups.push_back(
        {.feature = feature, .table = t, .row_splits = grid.row_splits, .unpooled = unpooled});
    switch (way) {
      case Way::kReplicated:
        routing.replicated.push_back({lookup, 0, 0, table.dim, nodes.rank, local[nodes.rank]});
        break;
      case Way::kDirect:
        add_pieces(lookup, sharding, grid, local, routing);
        break;
      case Way::kThroughNode:
        routing.through_nodes = true;
        routing.lookups.back().row_splits = {0, table.num_rows};
        routing.lookups.back().owner_splits = grid.row_splits;
        add_pieces_through_nodes(lookup, sharding, grid, local, nodes, routing);
        break;
    }
  }
}

// The owners of a to_node piece's row blocks, as ranks of their node.
std::vector<int> row_owners(const Piece& piece, const TableSharding& sharding, const Nodes& nodes) {
  std::vector<int> owners;
  for (const Shard& shard : sharding.shards) {
    if (shard.column_begin == piece.column_begin) owners.push_back(nodes.in_node(shard.rank));
  }
  return owners;
}

}  // namespace

Routing make_routing(std::span<const EmbeddingTable> tables, const ShardingPlan& plan,
                     SplitBags split_bags, int rank) {
  Routing routing;
  const int ranks_per_node = plan.ranks_per_node > 0 ? plan.ranks_per_node : plan.world_size;
  const Nodes nodes{rank, ranks_per_node, plan.world_size / ranks_per_node};
  for (std::int64_t t = 0; t < std::ssize(tables); ++t) {
    add_table(t, tables[t], plan, split_bags, nodes, routing);
  }
  std::stable_sort(routing.columns_to.begin(), routing.columns_to.end(),
                   [](const ColumnPeer& a, const ColumnPeer& b) { return a.rank < b.rank; });
  order_pieces(routing.direct, rank, plan.world_size);
  order_pieces(routing.to_node, nodes.node_of(rank), nodes.num_nodes);
  order_pieces(routing.in_node, nodes.in_node(rank), ranks_per_node);
  for (const Piece& piece : routing.to_node.pieces) {
    const EmbeddingTable& table = tables[routing.lookups[piece.lookup].table];
    routing.row_owners.push_back(row_owners(piece, sharding_of(plan, table.name), nodes));
  }
  list_pieces_of_shards(routing.replicated, routing.shards);
  list_pieces_of_shards(routing.direct.served(), routing.shards);
  list_pieces_of_shards(routing.in_node.served(), routing.shards);
  return routing;
}

}  // namespace serrate
