#include "src/embedding/routing.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "sharding/shard_grid.h"

namespace serrate {
namespace {

// Every column block of a row block to every one, itself included.
void add_column_peers(const TableSharding& sharding, const ShardGrid& grid,
                      std::span<const std::int64_t> local, Routing& routing) {
  const std::int64_t columns = grid.num_column_blocks();
  for (std::int64_t row = 0; row < grid.num_row_blocks(); ++row) {
    for (std::int64_t to = row * columns; to < (row + 1) * columns; ++to) {
      for (std::int64_t from = row * columns; from < (row + 1) * columns; ++from) {
        if (local[from] >= 0) {
          routing.columns_to.push_back({sharding.shards[to].rank, local[from]});
        }
        if (local[to] >= 0) {
          routing.columns_from.push_back({sharding.shards[from].rank, local[to]});
        }
      }
    }
  }
}

void sort_by_rank(Routing& routing, int world_size) {
  std::stable_sort(routing.columns_to.begin(), routing.columns_to.end(),
                   [](const ColumnPeer& a, const ColumnPeer& b) { return a.rank < b.rank; });
  std::stable_sort(routing.pieces.begin(), routing.pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.rank < b.rank; });
  routing.rank_begin.assign(world_size + 1, 0);
  for (const Piece& piece : routing.pieces) ++routing.rank_begin[piece.rank + 1];
  std::partial_sum(routing.rank_begin.begin(), routing.rank_begin.end(),
                   routing.rank_begin.begin());
}

void list_pieces_of_shards(std::span<const Piece> pieces, std::vector<ShardPlace>& shards) {
  for (std::int64_t i = 0; i < std::ssize(pieces); ++i) {
    shards[pieces[i].shard].pieces.push_back(i);
  }
}

void order_by_lookup(Routing& routing) {
  routing.by_lookup.resize(routing.pieces.size());
  std::iota(routing.by_lookup.begin(), routing.by_lookup.end(), 0);
  const auto key = [&](std::int64_t i) {
    const Piece& p = routing.pieces[i];
    return std::tuple(p.lookup, p.row_block, p.column_begin);
  };
  std::sort(routing.by_lookup.begin(), routing.by_lookup.end(),
            [&](std::int64_t a, std::int64_t b) { return key(a) < key(b); });
}

}  // namespace

Routing make_routing(std::span<const EmbeddingTable> tables, const ShardingPlan& plan, int rank) {
  Routing routing;
  for (std::int64_t t = 0; t < std::ssize(tables); ++t) {
    const TableSharding& sharding = sharding_of(plan, tables[t].name);
    const ShardGrid grid = shard_grid(sharding);
    const bool replicated = sharding.type == ShardingType::kDataParallel;
    std::vector<std::int64_t> local(sharding.shards.size(), -1);
    for (std::size_t i = 0; i < sharding.shards.size(); ++i) {
      if (sharding.shards[i].rank != rank) continue;
      local[i] = std::ssize(routing.shards);
      routing.shards.push_back(
          {t, sharding.shards[i], replicated, grid.num_column_blocks() > 1, {}});
    }
    if (grid.num_column_blocks() > 1) {
      routing.any_column_cut = true;
      add_column_peers(sharding, grid, local, routing);
    }
    for (const std::string& feature : tables[t].features) {
      const std::int64_t lookup = std::ssize(routing.lookups);
      routing.lookups.push_back({feature, t, grid.row_splits});
      for (std::size_t i = 0; i < sharding.shards.size(); ++i) {
        const Shard& s = sharding.shards[i];
        const std::int64_t row_block =
            replicated ? 0 : static_cast<std::int64_t>(i) / grid.num_column_blocks();
        const Piece piece{lookup, row_block, s.column_begin, s.column_end, s.rank, local[i]};
        if (!replicated) {
          routing.pieces.push_back(piece);
        } else if (s.rank == rank) {
          routing.replicated.push_back(piece);
        }
      }
    }
  }
  sort_by_rank(routing, plan.world_size);
  order_by_lookup(routing);
  list_pieces_of_shards(routing.served_by(rank), routing.shards);
  list_pieces_of_shards(routing.replicated, routing.shards);
  return routing;
}

}  // namespace serrate
