// Bytes of what src/embedding allocates: weights and state of a rank's shards, and the buffers of
// an EmbeddingExchange (src/embedding/exchange_state.h) for an average batch.

#include <algorithm>
#include <cmath>

#include "serrate/planner.h"
#include "sharding/estimate/lookups.h"
#include "sharding/estimate/optimizer_state.h"
#include "sharding/plan/shard_grid.h"
#include "src/core/checked_math.h"

namespace serrate {
namespace {

constexpr double kWord = 8;
constexpr double kFloat = 4;
// Buffer::resize_discard allocates a quarter more than the first batch needs.
constexpr double kSlack = 1.25;

// For one rank's shards, in bytes without slack.
struct Buffers {
  double sums = 0;
  double ids = 0;            // of the sums, what an EmbeddingInput has too
  double largest_group = 0;  // the update groups one shard after the other in the same memory
};

class Prediction {
 public:
  Prediction(const PlannerModel& model, const ShardingPlan& plan)
      : model_(model),
        plan_(plan),
        world_(plan.world_size),
        buffers_(plan.world_size),
        memory_(plan.world_size) {
    for (const PlannerTable& table : model.tables) any_weighted_ |= table.weighted;
  }

  std::vector<RankMemory> predict() {
    for (const PlannerTable& table : model_.tables) add_table(table);
    for (std::size_t r = 0; r < memory_.size(); ++r) {
      const Buffers& b = buffers_[r];
      memory_[r].exchange = bytes_of(kSlack * (everywhere_ + b.sums + b.largest_group));
      memory_[r].ahead = bytes_of(kSlack * (ids_everywhere_ + b.ids));
    }
    return memory_;
  }

 private:
  void add_everywhere(double bytes) { everywhere_ += bytes; }
  void add_ids_everywhere(double bytes) {
    everywhere_ += bytes;
    ids_everywhere_ += bytes;
  }
  // One rank's lookups in a part of a table. Most parts are like the one before.
  Lookups lookups(const PlannerTable& table, std::int64_t rows) {
    if (&table != counted_table_ || rows != counted_rows_) {
      const double share = static_cast<double>(rows) / static_cast<double>(table.num_rows);
      counted_ = count_lookups(table, model_.batch_size, share);
      counted_table_ = &table;
      counted_rows_ = rows;
    }
    return counted_;
  }
  // The part of a message that one piece of each feature takes: its offsets and ids.
  double message_bytes(const PlannerTable& table, const Lookups& n) const {
    return (static_cast<double>(table.features.size()) + n.bags + n.ids) * kWord +
           (any_weighted_ ? n.ids * kFloat : 0);
  }
  static double row_bytes(const Lookups& n, std::int64_t columns) {
    return n.bags * static_cast<double>(columns) * kFloat;
  }
  // RowGroups on a CPU: rows, their offsets and occurrences; the sort's keys, twice, and bags. A
  // GPU has two words an id, and two floats with weights: 32 bytes fewer than this, or 28.
  double group_bytes(double ids) const {
    return ids * (6 * kWord + (any_weighted_ ? kFloat : 0)) + 2 * kWord;
  }

  // A batch's ids, parted by row block: an index and an offset for as many bags as there may be.
  double parted_bytes(const PlannerTable& table, std::int64_t num_blocks) const {
    const double bags = room_for_bags(table, model_.batch_size, static_cast<double>(num_blocks));
    const double ids = count_lookups(table, model_.batch_size, 1).ids;
    return (2 * bags + ids) * kWord + (any_weighted_ ? ids * kFloat : 0);
  }
  static std::vector<std::int64_t> rows_of_blocks(const ShardGrid& grid) {
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < grid.num_row_blocks(); ++i) {
      rows.push_back(grid.row_splits[i + 1] - grid.row_splits[i]);
    }
    return rows;
  }

  // What the ranks of a column block's node have of each node's bags, on their way to the owners.
  void add_passed_on(const PlannerTable& table, const TableSharding& sharding,
                     const ShardGrid& grid) {
    const double num_nodes = world_ / plan_.ranks_per_node;
    const double firsts = static_cast<double>(table.features.size()) * (num_nodes - 1) * kWord;
    for (std::int64_t column = 0; column < grid.num_column_blocks(); ++column) {
      const Shard& top = sharding.shards[column];
      const Lookups whole = lookups(table, table.num_rows) * num_nodes;
      double ids = firsts + message_bytes(table, whole);
      double rows_of_ids = row_bytes(whole, top.num_columns());
      ids += parted_bytes(table, grid.num_row_blocks()) * num_nodes;
      for (const std::int64_t rows : rows_of_blocks(grid)) {
        const Lookups part = lookups(table, rows) * num_nodes;
        ids += firsts + message_bytes(table, part);
        rows_of_ids += row_bytes(part, top.num_columns());
      }
      const int first = top.rank - top.rank % plan_.ranks_per_node;
      for (int i = 0; i < plan_.ranks_per_node; ++i) {
        buffers_[first + i].sums += ids + rows_of_ids;
        buffers_[first + i].ids += ids;
      }
    }
  }

  void add_table(const PlannerTable& table) {
    const TableSharding& sharding = sharding_of(plan_, table.name);
    const ShardGrid grid = shard_grid(sharding);
    const auto column_blocks = static_cast<double>(grid.num_column_blocks());
    // The outputs and their gradients.
    add_everywhere(2 * count_bags(table, model_.batch_size) * static_cast<double>(table.dim) *
                   kFloat);
    const bool by_node = through_nodes(sharding, plan_);
    // Ids by row block, and to count them also as whole bags if those are sent through nodes.
    add_ids_everywhere(parted_bytes(table, grid.num_row_blocks()));
    if (by_node) add_ids_everywhere(parted_bytes(table, 1));
    for (const std::int64_t rows : by_node ? std::vector{table.num_rows} : rows_of_blocks(grid)) {
      const Lookups own = lookups(table, rows);
      // What is asked for, and the rows that answer.
      add_ids_everywhere(message_bytes(table, own) * column_blocks);
      add_everywhere(row_bytes(own, table.dim));
    }
    if (by_node) add_passed_on(table, sharding, grid);
    for (const Shard& shard : sharding.shards) add_shard(table, shard, grid.num_column_blocks());
  }

  void add_shard(const PlannerTable& table, const Shard& shard, std::int64_t column_blocks) {
    const auto rows = static_cast<double>(shard.num_rows());
    const auto columns = static_cast<double>(shard.num_columns());
    RankMemory& memory = memory_[shard.rank];
    const double weights = rows * columns * static_cast<double>(table.bytes_per_element);
    const double state = rows * state_floats(table, columns) * kFloat;
    memory.weights = sum_of_bytes({memory.weights, bytes_of(weights)});
    memory.optimizer = sum_of_bytes({memory.optimizer, bytes_of(state)});

    const Lookups all = lookups(table, shard.num_rows()) * world_;
    Buffers& b = buffers_[shard.rank];
    // What every rank asks of the shard, or the batches that replicas gather.
    const double firsts = static_cast<double>(table.features.size()) * (world_ - 1) * kWord;
    const double ids = firsts + message_bytes(table, all);
    b.sums += ids + row_bytes(all, shard.num_columns());
    // What replicas gather is the step's.
    if (sharding_of(plan_, table.name).type != ShardingType::kDataParallel) b.ids += ids;
    const double groups = group_bytes(all.ids);
    const bool squares = column_blocks > 1 && table.optimizer == SparseOptimizer::kRowWiseAdagrad;
    if (!squares) {
      b.largest_group = std::max(b.largest_group, groups);
      return;
    }
    // Shards that are cut by columns keep their groups, and exchange a value for each row, of which
    // there may be as many as ids.
    b.sums += groups + all.ids * (1 + 2 * static_cast<double>(column_blocks)) * kFloat;
  }

  const PlannerModel& model_;
  const ShardingPlan& plan_;
  double world_;
  bool any_weighted_ = false;
  const PlannerTable* counted_table_ = nullptr;
  std::int64_t counted_rows_ = 0;
  Lookups counted_;
  double everywhere_ = 0;           // bytes without slack, on every rank
  double ids_everywhere_ = 0;       // of these, what an EmbeddingInput has too
  std::vector<Buffers> buffers_;    // [world_size]
  std::vector<RankMemory> memory_;  // [world_size]
};

}  // namespace

std::vector<RankMemory> predict_memory(const PlannerModel& model, const ShardingPlan& plan) {
  return Prediction(model, plan).predict();
}

}  // namespace serrate
