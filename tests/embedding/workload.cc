#include "tests/embedding/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "serrate/error.h"
#include "tests/support/on_host.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

// Cuts `size` bags into world_size runs; ranks may get none.
std::vector<std::int64_t> cut(std::int64_t size, int world_size, std::mt19937& random) {
  std::vector<std::int64_t> splits{0, size};
  for (int i = 1; i < world_size; ++i) {
    splits.push_back(static_cast<std::int64_t>(random() % (size + 1)));
  }
  std::sort(splits.begin(), splits.end());
  return splits;
}

using Cuts = std::map<std::string, std::vector<std::int64_t>>;  // by feature, [world_size + 1]

Cuts cut_batch(const GlobalBatch& batch, int world_size, int step) {
  std::mt19937 random(step * 31 + world_size);
  Cuts cuts;
  for (const auto& [feature, bags] : batch) {
    cuts[feature] = cut(std::ssize(bags.ids), world_size, random);
  }
  return cuts;
}

KeyedJaggedTensor local_batch(const GlobalBatch& batch, const Cuts& cuts, int rank, bool weighted,
                              const Stream& stream) {
  std::vector<std::string> keys;
  std::vector<std::int64_t> values, offsets{0}, bags_per_key, values_per_key;
  std::vector<float> weights;
  for (const auto& [feature, bags] : batch) {
    const std::int64_t begin = cuts.at(feature)[rank], end = cuts.at(feature)[rank + 1];
    const auto first_value = std::ssize(values);
    for (std::int64_t b = begin; b < end; ++b) {
      values.insert(values.end(), bags.ids[b].begin(), bags.ids[b].end());
      if (weighted) weights.insert(weights.end(), bags.weights[b].begin(), bags.weights[b].end());
      offsets.push_back(std::ssize(values));
    }
    keys.push_back(feature);
    bags_per_key.push_back(end - begin);
    values_per_key.push_back(std::ssize(values) - first_value);
  }
  return {keys,
          bags_per_key,
          values_per_key,
          {std::span<const std::int64_t>(values), stream},
          {std::span<const std::int64_t>(offsets), stream},
          {std::span<const float>(weights), stream}};
}

// Writes a block of a tensor that is `stride` wide. Replicas have to have the same bits.
void write_block(const std::vector<float>& block, const Shard& shard, std::int64_t stride,
                 std::vector<float>& tensor) {
  const std::int64_t columns = std::ssize(block) / shard.num_rows();
  // A state of one value per row is in every column shard.
  const std::int64_t first_column = stride == 1 ? 0 : shard.column_begin;
  for (std::int64_t i = 0; i < std::ssize(block); ++i) {
    float& value = tensor[(shard.row_begin + i / columns) * stride + first_column + i % columns];
    if (!std::isnan(value) && value != block[i]) throw Error("replicas differ");
    value = block[i];
  }
}

void add_shard(const Workload& workload, const RankResult::OwnShard& own, Tensors<float>& all) {
  const EmbeddingTable& table =
      *std::find_if(workload.tables.begin(), workload.tables.end(),
                    [&](const EmbeddingTable& t) { return t.name == own.table; });
  const auto add = [&](const char* name, const std::vector<float>& block, std::int64_t width) {
    if (block.empty()) return;
    auto& tensor = all[own.table + " " + name];
    tensor.resize(table.num_rows * width, std::numeric_limits<float>::quiet_NaN());
    write_block(block, own.shard, width, tensor);
  };
  const bool per_row = workload.optimizer.type == SparseOptimizer::kRowWiseAdagrad;
  add("weights", own.weights, table.dim);
  add("state", own.state, per_row ? 1 : table.dim);
  add("second_moment", own.second_moment, table.dim);
}

std::string output_name(int step, const EmbeddingLookup& lookup) {
  return fmt::format("output {} {}/{}", step, lookup.table, lookup.feature);
}

// The tables of a rank and a batch ahead of its step.
struct Training {
  const Workload& workload;
  Communicator& communicator;
  const Stream& stream;
  Stream input_stream;
  ShardedEmbedding embedding;
  EmbeddingExchange exchange;
  EmbeddingInput ahead;

  Training(const Workload& w, const ShardingPlan& plan, const EmbeddingOptions& options,
           Communicator& c, const Stream& step_stream)
      : workload(w),
        communicator(c),
        stream(step_stream),
        input_stream(step_stream.device(), step_stream.num_threads()),
        embedding(w.tables, plan, options, c, step_stream) {}
  ~Training() { input_stream.wait_for(stream); }
};

void send_ahead(Training& t, int step) {
  const GlobalBatch batch = global_batch(t.workload, step);
  const Cuts cuts = cut_batch(batch, t.communicator.size(), step);
  t.embedding.input_dist(
      local_batch(batch, cuts, t.communicator.rank(), is_weighted(step), t.input_stream), t.ahead,
      t.input_stream);
}

// The ids of the next step are sent in the middle of it.
void train_step(Training& t, int step, Tensors<float>& outputs) {
  ShardedEmbedding& embedding = t.embedding;
  EmbeddingExchange& exchange = t.exchange;
  const Stream& stream = t.stream;
  const int rank = t.communicator.rank();
  const Cuts cuts = cut_batch(global_batch(t.workload, step), t.communicator.size(), step);
  exchange.take(t.ahead, stream);
  embedding.lookup(exchange, stream);
  embedding.output_dist(exchange, stream);
  for (std::int64_t l = 0; l < std::ssize(embedding.lookups()); ++l) {
    const EmbeddingLookup& lookup = embedding.lookups()[l];
    const std::int64_t first_bag = cuts.at(lookup.feature)[rank];
    const std::vector<float> output = on_host(exchange.output(l), stream);
    const std::int64_t dim = exchange.output(l).cols;
    std::vector<float> gradient;
    for (std::int64_t i = 0; i < std::ssize(output); ++i) {
      gradient.push_back(static_cast<float>(
          d_output(t.workload.feedback * output[i], l, first_bag + i / dim, i % dim, step)));
    }
    copy_from_host<float>(gradient, exchange.d_output(l).flat(), stream);
    auto& tensor = outputs[output_name(step, lookup)];
    tensor.insert(tensor.end(), output.begin(), output.end());
  }
  if (step < t.workload.num_steps) send_ahead(t, step + 1);
  embedding.output_dist_backward(exchange, stream);
  embedding.update(exchange, step, stream);
}

}  // namespace

std::vector<EmbeddingTable> workload_tables() {
  return {
      {.name = "items", .num_rows = 37, .dim = 20, .features = {"history", "target"}},
      {.name = "users",
       .num_rows = 11,
       .dim = 8,
       .pooling = PoolingType::kMean,
       .features = {"user"}},
      {.name = "country",
       .num_rows = 5,
       .dim = 4,
       .pooling = PoolingType::kMean,
       .features = {"country", "user"},
       .init_scale = 0.5f},
      {.name = "prices", .num_rows = 64, .dim = 12, .features = {"price", "history"}},
  };
}

bool is_weighted(int step) {
  return step % 2 == 1;
}

GlobalBatch global_batch(const Workload& workload, int step) {
  // The last feature is looked up nowhere. "user" and "history" have to fit two tables.
  const std::map<std::string, std::int64_t> num_ids{{"country", 5}, {"history", 37},  {"price", 64},
                                                    {"target", 37}, {"unused", 1000}, {"user", 5}};
  std::mt19937 random(1000 + step);
  GlobalBatch batch;
  for (const auto& [feature, ids] : num_ids) {
    reference::WeightedBags& bags = batch[feature];
    const bool empty = step == 4 || (step == 5 && feature == "history");
    const auto num_bags =
        empty ? 0 : static_cast<std::int64_t>(random() % (workload.bags_per_feature + 1));
    for (std::int64_t b = 0; b < num_bags; ++b) {
      const auto length = workload.longest_bag == 1
                              ? 1
                              : static_cast<std::int64_t>(random() % (workload.longest_bag + 1));
      auto& bag = bags.ids.emplace_back();
      auto& weights = bags.weights.emplace_back();
      for (std::int64_t i = 0; i < length; ++i) {
        bag.push_back(static_cast<std::int64_t>(random() % ids));
        // Multiples of 1/8: the same in float and in double.
        weights.push_back(is_weighted(step) ? 0.5 + 0.125 * (random() % 9) : 1.0);
      }
    }
  }
  return batch;
}

double d_output(double feedback, std::int64_t lookup, std::int64_t bag, std::int64_t column,
                int step) {
  const auto mixed = static_cast<std::uint32_t>(
      (((lookup * 1009 + bag) * 1013 + column) * 1019 + step) * 2654435761u);
  return feedback + (static_cast<double>(mixed >> 24) - 127.5) / 128.0;
}

RankResult train_rank(const Workload& workload, const ShardingPlan& plan,
                      Communicator& communicator, const Stream& stream) {
  EmbeddingOptions options;
  options.optimizer = workload.optimizer;
  options.seed = 11;
  options.split_bags = workload.split_bags;
  Training training(workload, plan, options, communicator, stream);
  RankResult result;
  send_ahead(training, 1);
  for (int step = 1; step <= workload.num_steps; ++step) {
    train_step(training, step, result.outputs);
  }
  for (const LocalShard& local : training.embedding.local_shards()) {
    result.shards.push_back({local.table, local.shard, on_host(local.weights, stream),
                             on_host(local.state, stream), on_host(local.second_moment, stream)});
  }
  return result;
}

std::vector<RankResult> train_thread_ranks(const Workload& workload, const ShardingPlan& plan,
                                           int num_threads, Device device) {
  std::vector<RankResult> ranks(plan.world_size);
  run_ranks(plan.world_size, [&](Communicator& communicator) {
    const Stream stream(device, num_threads);
    ranks[communicator.rank()] = train_rank(workload, plan, communicator, stream);
  });
  return ranks;
}

Tensors<float> assemble(const Workload& workload, const std::vector<RankResult>& ranks) {
  Tensors<float> all;
  for (const RankResult& rank : ranks) {
    for (const auto& [name, values] : rank.outputs) {
      all[name].insert(all[name].end(), values.begin(), values.end());
    }
    for (const RankResult::OwnShard& own : rank.shards) add_shard(workload, own, all);
  }
  return all;
}

ShardingPlan uniform_plan(const Workload& workload, ShardingType type, int world_size,
                          int ranks_per_node) {
  ShardingPlan plan{.world_size = world_size, .ranks_per_node = ranks_per_node};
  int rank = 0;
  for (const EmbeddingTable& table : workload.tables) {
    plan.tables.push_back(
        shard_table(table, type, world_size, rank++ % world_size, ranks_per_node));
  }
  return plan;
}

ShardingPlan mixed_plan(const Workload& workload, int world_size) {
  const auto& tables = workload.tables;
  const auto rank = [&](int r) { return r % world_size; };
  return {world_size,
          {{tables[0].name,
            ShardingType::kRowWise,
            {{0, 3, 0, 20, rank(2)},
             {3, 30, 0, 20, rank(0)},
             {30, 31, 0, 20, rank(2)},
             {31, 37, 0, 20, rank(1)}}},
           shard_table(tables[1], ShardingType::kTableWise, world_size, rank(1)),
           shard_table(tables[2], ShardingType::kDataParallel, world_size),
           {tables[3].name,
            ShardingType::kColumnWise,
            {{0, 64, 0, 5, rank(1)}, {0, 64, 5, 6, rank(3)}, {0, 64, 6, 12, rank(1)}}}}};
}

ShardingPlan mixed_node_plan(const Workload& workload, int world_size, int ranks_per_node) {
  const auto& tables = workload.tables;
  const int num_nodes = world_size / ranks_per_node;
  const auto rank = [&](int node, int local) {
    return node % num_nodes * ranks_per_node + local % ranks_per_node;
  };
  return {world_size,
          {{tables[0].name,
            ShardingType::kGrid,
            {{0, 3, 0, 5, rank(1, 1)},
             {0, 3, 5, 6, rank(0, 0)},
             {0, 3, 6, 20, rank(1, 0)},
             {3, 30, 0, 5, rank(1, 0)},
             {3, 30, 5, 6, rank(0, 1)},
             {3, 30, 6, 20, rank(1, 0)},
             {30, 37, 0, 5, rank(1, 1)},
             {30, 37, 5, 6, rank(0, 0)},
             {30, 37, 6, 20, rank(1, 1)}}},
           {tables[1].name,
            ShardingType::kTableRowWise,
            {{0, 2, 0, 8, rank(0, 1)}, {2, 3, 0, 8, rank(0, 0)}, {3, 11, 0, 8, rank(0, 1)}}},
           shard_table(tables[2], ShardingType::kDataParallel, world_size),
           {tables[3].name,
            ShardingType::kTableColumnWise,
            {{0, 64, 0, 5, rank(1, 0)}, {0, 64, 5, 12, rank(1, 1)}}}},
          ranks_per_node};
}

ShardingPlan odd_rank_plan(const Workload& workload, int world_size) {
  const int num_ranks = std::max(world_size / 2, 1);
  ShardingPlan plan{.world_size = world_size};
  for (const EmbeddingTable& table : workload.tables) {
    TableSharding sharding = shard_table(table, ShardingType::kRowWise, num_ranks);
    for (Shard& s : sharding.shards) {
      s.rank = std::min(2 * (num_ranks - s.rank) - 1, world_size - 1);
    }
    plan.tables.push_back(std::move(sharding));
  }
  return plan;
}

Tensors<double> train_reference(const Workload& workload, const Tensors<float>& initial) {
  std::vector<reference::Table> tables;
  for (const EmbeddingTable& table : workload.tables) {
    const auto& weights = initial.at(table.name + " weights");
    tables.emplace_back(table, workload.optimizer,
                        std::vector<double>(weights.begin(), weights.end()));
  }
  Tensors<double> all;
  for (int step = 1; step <= workload.num_steps; ++step) {
    const GlobalBatch batch = global_batch(workload, step);
    std::int64_t lookup = 0;
    for (reference::Table& table : tables) {
      std::vector<reference::WeightedBags> lookups;
      std::vector<std::vector<double>> gradients;
      const std::int64_t dim = table.definition.dim;
      for (const std::string& feature : table.definition.features) {
        const reference::WeightedBags& bags = lookups.emplace_back(batch.at(feature));
        const auto output = table.lookup(bags);
        all[output_name(step, {feature, table.definition.name})] = output;
        auto& gradient = gradients.emplace_back(output);
        for (std::int64_t i = 0; i < std::ssize(output); ++i) {
          gradient[i] = d_output(workload.feedback * output[i], lookup, i / dim, i % dim, step);
        }
        ++lookup;
      }
      table.update(lookups, gradients, step);
    }
  }
  for (const reference::Table& table : tables) {
    all[table.definition.name + " weights"] = table.weights;
    if (workload.optimizer.type != SparseOptimizer::kSgd) {
      all[table.definition.name + " state"] = table.state;
    }
    if (workload.optimizer.type == SparseOptimizer::kAdam) {
      all[table.definition.name + " second_moment"] = table.second_moment;
    }
  }
  return all;
}

}  // namespace serrate
