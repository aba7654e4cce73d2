#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "serrate/error.h"
#include "serrate/sharding_plan.h"

namespace serrate {
namespace {

float largest(DataType type) {
  switch (type) {
    case DataType::kFloat16:
      return 65504;
    case DataType::kBFloat16:
      return 0x1.FEp127f;
    case DataType::kFloat32:
      break;
  }
  return std::numeric_limits<float>::max();
}

void check_tables(std::span<const EmbeddingTable> tables) {
  std::set<std::string> names;
  for (const EmbeddingTable& table : tables) {
    const auto fail = [&](const std::string& problem) {
      throw usage_error(fmt::format("embedding table \"{}\": {}", table.name, problem));
    };
    if (!names.insert(table.name).second) fail("name: another table has this name");
    if (table.num_rows < 1)
      fail(fmt::format("num_rows: must be at least 1 (got {})", table.num_rows));
    if (table.dim < 1) fail(fmt::format("dim: must be at least 1 (got {})", table.dim));
    if (!std::isfinite(table.init_scale) || table.init_scale > largest(table.data_type)) {
      fail(fmt::format("init_scale: must be at most {} in {} (got {})", largest(table.data_type),
                       to_string(table.data_type), table.init_scale));
    }
    const std::set<std::string> features(table.features.begin(), table.features.end());
    if (features.size() != table.features.size()) fail("features: one of them appears twice");
  }
}

// The entry of a plan for one table, with the words that its errors end with.
class TableValidator {
 public:
  TableValidator(const TableSharding& sharding, std::size_t index, const EmbeddingTable& table,
                 const ShardingPlan& plan)
      : sharding_(sharding),
        index_(index),
        table_(table),
        world_size_(plan.world_size),
        ranks_per_node_(plan.ranks_per_node) {}

  void validate() const {
    for (std::size_t i = 0; i < sharding_.shards.size(); ++i) check_shard(i);
    switch (sharding_.type) {
      case ShardingType::kDataParallel:
        check_count(world_size_, "one for each rank");
        check_each_rank_once();
        check_all_rows();
        check_all_columns();
        break;
      case ShardingType::kTableWise:
        check_count(1, "one");
        check_all_rows();
        check_all_columns();
        break;
      case ShardingType::kRowWise:
        check_all_columns();
        check_cover("rows", &Shard::row_begin, &Shard::row_end, table_.num_rows);
        break;
      case ShardingType::kColumnWise:
        check_all_rows();
        check_cover("columns", &Shard::column_begin, &Shard::column_end, table_.dim);
        break;
      case ShardingType::kTableRowWise:
        check_all_columns();
        check_cover("rows", &Shard::row_begin, &Shard::row_end, table_.num_rows);
        check_one_node(1);
        break;
      case ShardingType::kTableColumnWise:
        check_all_rows();
        check_cover("columns", &Shard::column_begin, &Shard::column_end, table_.dim);
        check_one_node(1);
        break;
      case ShardingType::kGrid:
        check_one_node(check_grid());
        break;
    }
  }

 private:
  [[noreturn]] void fail(const std::string& field, const std::string& problem) const {
    throw usage_error(fmt::format("sharding plan: tables[{}].{}: {} ({} table \"{}\", {} x {})",
                                  index_, field, problem, to_string(sharding_.type), table_.name,
                                  table_.num_rows, table_.dim));
  }
  [[noreturn]] void fail(std::size_t shard, const char* field, const std::string& problem) const {
    fail(fmt::format("shards[{}].{}", shard, field), problem);
  }

  void check_shard(std::size_t i) const {
    const Shard& s = sharding_.shards[i];
    if (s.rank < 0 || s.rank >= world_size_) {
      fail(i, "rank", fmt::format("must be between 0 and {} (got {})", world_size_ - 1, s.rank));
    }
    check_range(i, "rows", s.row_begin, s.row_end, table_.num_rows);
    check_range(i, "columns", s.column_begin, s.column_end, table_.dim);
  }

  void check_range(std::size_t shard, const char* field, std::int64_t begin, std::int64_t end,
                   std::int64_t size) const {
    if (begin < 0 || end > size) {
      fail(shard, field, fmt::format("[{}, {}] is not within [0, {}]", begin, end, size));
    }
    if (begin >= end) fail(shard, field, fmt::format("[{}, {}] is empty", begin, end));
  }

  void check_count(int expected, const char* words) const {
    if (std::ssize(sharding_.shards) == expected) return;
    fail("shards", fmt::format("must be {} (got {})", words, sharding_.shards.size()));
  }

  void check_each_rank_once() const {
    for (std::size_t i = 0; i < sharding_.shards.size(); ++i) {
      const int rank = sharding_.shards[i].rank;
      if (rank != static_cast<int>(i)) fail(i, "rank", fmt::format("must be {} (got {})", i, rank));
    }
  }

  void check_all_rows() const {
    for (std::size_t i = 0; i < sharding_.shards.size(); ++i) {
      if (sharding_.shards[i].num_rows() != table_.num_rows) fail(i, "rows", "must be all rows");
    }
  }

  void check_all_columns() const {
    for (std::size_t i = 0; i < sharding_.shards.size(); ++i) {
      if (sharding_.shards[i].num_columns() != table_.dim)
        fail(i, "columns", "must be all columns");
    }
  }

  // From 0 to `size`, each shard beginning where the one before ends: nothing twice, no gap.
  void check_cover(const char* field, std::int64_t Shard::* begin, std::int64_t Shard::* end,
                   std::int64_t size) const {
    std::int64_t covered = 0;
    for (std::size_t i = 0; i < sharding_.shards.size(); ++i) {
      const Shard& s = sharding_.shards[i];
      check_begins(i, field, s.*begin, covered);
      covered = s.*end;
    }
    if (covered != size) {
      fail("shards", fmt::format("must reach {} {} (they end at {})", size, field, covered));
    }
  }

  // Blocks of rows, each cut at the same columns. Returns the number of column blocks.
  std::size_t check_grid() const {
    const auto& shards = sharding_.shards;
    std::size_t column_blocks = 0;
    for (std::int64_t covered = 0; covered < table_.dim; ++column_blocks) {
      if (column_blocks == shards.size()) fail("shards", "must reach all columns");
      check_begins(column_blocks, "columns", shards[column_blocks].column_begin, covered);
      covered = shards[column_blocks].column_end;
    }
    std::int64_t rows_covered = 0;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const Shard& above = shards[i % column_blocks];
      const Shard& left = shards[i - i % column_blocks];
      check_begins(i, "rows", shards[i].row_begin, rows_covered);
      if (shards[i].row_end != left.row_end) fail(i, "rows", "must be those of its row of blocks");
      if (shards[i].column_begin != above.column_begin ||
          shards[i].column_end != above.column_end) {
        fail(i, "columns", "must be those of its column of blocks");
      }
      if ((i + 1) % column_blocks == 0) rows_covered = left.row_end;
    }
    if (rows_covered != table_.num_rows || shards.size() % column_blocks != 0) {
      fail("shards", "must cover each row and column once");
    }
    return column_blocks;
  }

  void check_begins(std::size_t shard, const char* field, std::int64_t begin,
                    std::int64_t covered) const {
    if (begin == covered) return;
    fail(shard, field,
         fmt::format(
             "must begin at {} (got {}): shards have to cover each of the table's {} exactly once",
             covered, begin, field));
  }

  // Each column of `column_blocks` blocks has its shards in one node.
  void check_one_node(std::size_t column_blocks) const {
    if (ranks_per_node_ < 1) {
      throw usage_error(
          fmt::format("sharding plan: ranks_per_node: is missing ({} table \"{}\" needs nodes)",
                      to_string(sharding_.type), table_.name));
    }
    for (std::size_t i = column_blocks; i < sharding_.shards.size(); ++i) {
      const int node = sharding_.shards[i % column_blocks].rank / ranks_per_node_;
      const int rank = sharding_.shards[i].rank;
      if (rank / ranks_per_node_ != node) {
        fail(i, "rank", fmt::format("must be a rank of node {} (got {})", node, rank));
      }
    }
  }

  const TableSharding& sharding_;
  std::size_t index_;
  const EmbeddingTable& table_;
  int world_size_;
  int ranks_per_node_;
};

}  // namespace

void validate_plan(const ShardingPlan& plan, std::span<const EmbeddingTable> tables,
                   int world_size) {
  check_tables(tables);
  if (plan.world_size != world_size) {
    throw usage_error(fmt::format("sharding plan: world_size: is {}, but there are {} ranks",
                                  plan.world_size, world_size));
  }
  if (plan.ranks_per_node > 0 && world_size % plan.ranks_per_node != 0) {
    throw usage_error(
        fmt::format("sharding plan: ranks_per_node: must divide the {} ranks (got {})", world_size,
                    plan.ranks_per_node));
  }
  std::map<std::string, const EmbeddingTable*> missing;
  for (const EmbeddingTable& table : tables) missing[table.name] = &table;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < plan.tables.size(); ++i) {
    const TableSharding& sharding = plan.tables[i];
    const auto found = missing.find(sharding.table);
    if (found == missing.end()) {
      throw usage_error(fmt::format(
          "sharding plan: tables[{}].table: \"{}\" {}", i, sharding.table,
          seen.contains(sharding.table) ? "is in the plan twice" : "is not a table of the model"));
    }
    TableValidator(sharding, i, *found->second, plan).validate();
    seen.insert(sharding.table);
    missing.erase(found);
  }
  if (!missing.empty()) {
    throw usage_error(
        fmt::format("sharding plan: tables: \"{}\" is missing", missing.begin()->first));
  }
}

}  // namespace serrate
