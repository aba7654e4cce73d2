// One training step of sharded pooled embeddings, the workload of the TorchRec script of
// docs/performance.md: 8 tables of 1 M rows x 128 columns, 2,048 bags a feature and rank, uniform
// ids, row-wise Adagrad, a linear layer over all outputs and the mean of its squares as the loss.
// Prints one JSON line: floor_megabytes is what a rank's step has to read and write in its memory
// at the least, and GB_per_s is by it. With --stages the time of each stage on rank 0, by the clock
// and in use of its processor (the first is more when the rank waits for others); on a GPU each
// stage is waited for then. With --topology (a file of serrate calibrate) also what the planner
// says, for the step but for the linear layer.
//
//   pooled_step_benchmark [--mode tw|cw|rw|dp|twrw|twcw|grid] [--batch-size 2048] [--ids-per-bag
//   20]
//                         [--rows N] [--steps 20] [--ranks 2]
//                         [--ranks-per-node 1] [--device cpu|cuda] [--stages] [--topology FILE]
//   mpirun -n 2 pooled_step_benchmark ...

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <string_view>

#include "benchmarks/benchmark_ranks.h"
#include "benchmarks/processor_time.h"
#include "serrate/kernels/add_to.h"
#include "serrate/kernels/linear.h"
#include "serrate/planner.h"
#include "serrate/random.h"
#include "serrate/sharded_embedding.h"
#include "sharding/estimate/plan_cost.h"

namespace serrate {
namespace {

constexpr std::int64_t kTables = 8, kDim = 128;
constexpr int kBatches = 4, kWarmup = 5;

struct Workload {
  std::string mode;
  std::int64_t batch_size;  // bags of a feature and rank
  std::int64_t ids_per_bag;
  std::int64_t rows;
  std::int64_t steps;
  int ranks_per_node;
  std::string topology;
};

enum Stage { kInput, kLookup, kOutput, kLinear, kBackward, kUpdate, kStages };
constexpr std::array<const char*, kStages> kNames{
    "input_dist", "lookup", "output_dist", "linear layer", "output_dist_backward", "update"};

ShardingType sharding_type(const std::string& mode) {
  static const std::map<std::string, ShardingType> types{
      {"tw", ShardingType::kTableWise},      {"cw", ShardingType::kColumnWise},
      {"rw", ShardingType::kRowWise},        {"dp", ShardingType::kDataParallel},
      {"twrw", ShardingType::kTableRowWise}, {"twcw", ShardingType::kTableColumnWise},
      {"grid", ShardingType::kGrid}};
  const auto found = types.find(mode);
  if (found == types.end()) throw usage_error("--mode is tw, cw, rw, dp, twrw, twcw or grid");
  return found->second;
}

KeyedJaggedTensor make_batch(const Workload& w, std::uint64_t seed, const Stream& stream) {
  std::vector<std::string> keys;
  std::vector<std::int64_t> values, offsets{0};
  for (std::int64_t t = 0; t < kTables; ++t) keys.push_back(fmt::format("f{}", t));
  for (std::int64_t bag = 0; bag < kTables * w.batch_size; ++bag) {
    for (std::int64_t i = 0; i < w.ids_per_bag; ++i) {
      values.push_back(random_below(seed, RandomUse::kGenerate, 0, values.size(), w.rows));
    }
    offsets.push_back(std::ssize(values));
  }
  return {keys,
          std::vector<std::int64_t>(kTables, w.batch_size),
          std::vector<std::int64_t>(kTables, w.batch_size * w.ids_per_bag),
          {std::span<const std::int64_t>(values), stream},
          {std::span<const std::int64_t>(offsets), stream}};
}

// y = sum over the lookups of output . weights; the loss is the mean of y^2. Writes the gradients
// of the outputs and that of the weights.
class LinearLayer {
 public:
  LinearLayer(std::int64_t batch_size, const Stream& stream)
      : batch_size_(batch_size),
        weights_(std::vector<float>(kTables * kDim, 0.03f), stream),
        scaled_(std::vector<float>(kTables * kDim, 0.06f / static_cast<float>(batch_size)), stream),
        d_weights_(kTables * kDim, stream),
        y_(batch_size_, stream),
        y_of_table_(batch_size_, stream) {}

  void run(EmbeddingExchange& exchange, const Stream& stream) {
    if (stream.device().type == DeviceType::kCpu) return run_on_cpu(exchange, stream);
    run_on_gpu(exchange, stream);
  }
  DeviceSpan<float> d_weights() { return d_weights_.span(); }

 private:
  void run_on_cpu(EmbeddingExchange& exchange, const Stream& stream) {
    const std::span<const float> weights = host_view(std::as_const(weights_).span(), stream);
    const std::span<float> d_weights = host_view(d_weights_.span(), stream);
    std::array<MatrixView<const float>, kTables> outputs;
    std::array<MatrixView<float>, kTables> d_outputs;
    for (std::int64_t t = 0; t < kTables; ++t) {
      outputs[t] = host_view(exchange.output(t), stream);
      d_outputs[t] = host_view(exchange.d_output(t), stream);
    }
    std::fill(d_weights.begin(), d_weights.end(), 0.0f);
    for (std::int64_t b = 0; b < batch_size_; ++b) {
      float y = 0;
      for (std::int64_t t = 0; t < kTables; ++t) {
        const float* row = outputs[t].row(b);
        const float* w = weights.data() + t * kDim;
#pragma omp simd reduction(+ : y)
        for (std::int64_t c = 0; c < kDim; ++c) y += row[c] * w[c];
      }
      const float d_y = 2.0f * y / static_cast<float>(batch_size_);
      for (std::int64_t t = 0; t < kTables; ++t) {
        const float* row = outputs[t].row(b);
        float* d_row = d_outputs[t].row(b);
#pragma omp simd
        for (std::int64_t c = 0; c < kDim; ++c) {
          d_row[c] = d_y * weights[t * kDim + c];
          d_weights[t * kDim + c] += d_y * row[c];
        }
      }
    }
  }

  // By the kernels of linear layers. The loss's factor of 2 / batch_size is in the weights, and not
  // in their gradient.
  void run_on_gpu(EmbeddingExchange& exchange, const Stream& stream) {
    const DeviceMatrix<float> y = y_.matrix(batch_size_, 1),
                              part = y_of_table_.matrix(batch_size_, 1);
    for (std::int64_t t = 0; t < kTables; ++t) {
      linear_forward({exchange.output(t), row(weights_, t), {}, t == 0 ? y : part}, stream);
      if (t > 0) add_to(y_of_table_.span(), y_.span(), stream);
    }
    zero_bytes(d_weights_.device_data(), static_cast<std::size_t>(d_weights_.bytes()), stream);
    for (std::int64_t t = 0; t < kTables; ++t) {
      linear_backward(
          {exchange.output(t), row(scaled_, t), y, exchange.d_output(t), row(d_weights_, t), {}},
          stream);
    }
  }
  static DeviceMatrix<float> row(Buffer<float>& of_tables, std::int64_t t) {
    return of_tables.matrix(kTables, kDim).middle_rows(t, t + 1);
  }

  std::int64_t batch_size_;
  Buffer<float> weights_, scaled_, d_weights_, y_, y_of_table_;
};

// ms of each stage on its slowest rank, as the planner has it.
std::array<double, kStages> predict(const Workload& w, const ShardingPlan& plan) {
  std::ifstream file(w.topology, std::ios::binary);
  if (!file) throw usage_error(fmt::format("--topology {} cannot be read", w.topology));
  const PlannerTopology topology =
      planner_topology_from_json(std::string(std::istreambuf_iterator<char>(file), {}));
  if (topology.world_size != plan.world_size) throw usage_error("--topology is of other ranks");
  PlannerModel model{.batch_size = w.batch_size};
  std::vector<PlacedTable> placed;
  for (const TableSharding& table : plan.tables) {
    const Shard& shard = table.shards.front();
    model.tables.push_back({.name = table.table,
                            .num_rows = w.rows,
                            .dim = kDim,
                            .features = {{.pooling_factor = static_cast<double>(w.ids_per_bag)}},
                            .optimizer = SparseOptimizer::kRowWiseAdagrad,
                            .min_columns = shard.num_columns()});
    PlacedTable& at = placed.emplace_back();
    at.type = table.type;
    if (at.type == ShardingType::kDataParallel) at.kernel = ComputeKernel::kDense;
    if (at.type == ShardingType::kDataParallel || at.type == ShardingType::kRowWise) continue;
    const bool by_node = at.type == ShardingType::kTableRowWise || at.type == ShardingType::kGrid;
    for (const Shard& s : table.shards) {
      if (s.row_begin > 0) break;
      at.blocks.push_back(by_node ? s.rank / topology.ranks_per_node : s.rank);
    }
  }
  PlanCostSum sum(model, topology, PlannerEstimator::kSerrate);
  for (std::size_t t = 0; t < placed.size(); ++t) sum.add(model.tables[t], placed[t]);
  constexpr std::array kPhases{kLookup, kUpdate, kOutput, kBackward, kInput};  // of phase_times
  std::array<double, kStages> stages{};
  for (int rank = 0; rank < plan.world_size; ++rank) {
    const PhaseTimes times = sum.phase_ms(rank);
    for (std::size_t k = 0; k < kPhases.size(); ++k) {
      stages[kPhases[k]] = std::max(stages[kPhases[k]], times[k]);
    }
  }
  return stages;
}

/// What a rank's step has to read and write in its memory, each byte once: the ids and their rows,
/// outputs written, read by the linear layer forward and backward, gradients of outputs written and
/// read by the update, and its rows with their state, read and written. Ranks have equal parts of
/// tables that are sharded; of those that are not, each updates all that any rank looked up.
double floor_bytes(const Workload& w, int world_size) {
  const auto bags = static_cast<double>(kTables * w.batch_size),
             ids = bags * static_cast<double>(w.ids_per_bag),
             all_rows = static_cast<double>(w.rows);
  constexpr double kRow = 4 * kDim;
  const double of_table = ids * world_size / kTables;
  const double rows = kTables * all_rows * -std::expm1(of_table * std::log1p(-1 / all_rows));
  const int parts = sharding_type(w.mode) == ShardingType::kDataParallel ? 1 : world_size;
  return ids * (8 + kRow) + bags * (3 + 2) * kRow + ids * 8 + rows / parts * (2 * kRow + 8);
}

void run_rank(const Workload& w, bool print_stages, Communicator& communicator,
              const Stream& stream) {
  std::vector<EmbeddingTable> tables;
  const int world_size = communicator.size();
  const ShardingType type = sharding_type(w.mode);
  ShardingPlan plan{.world_size = world_size, .ranks_per_node = w.ranks_per_node};
  for (std::int64_t t = 0; t < kTables; ++t) {
    tables.push_back({.name = fmt::format("t{}", t),
                      .num_rows = w.rows,
                      .dim = kDim,
                      .features = {fmt::format("f{}", t)}});
    // Tables on ranks, or nodes, in turn.
    const int step = type == ShardingType::kTableWise ? 1
                     : needs_nodes(type)              ? w.ranks_per_node
                                                      : 0;
    plan.tables.push_back(shard_table(tables[t], type, world_size,
                                      static_cast<int>(t) * step % world_size, w.ranks_per_node));
  }
  EmbeddingOptions options;
  options.optimizer = {.type = SparseOptimizer::kRowWiseAdagrad, .learning_rate = 0.01f};
  ShardedEmbedding embedding(tables, plan, options, communicator, stream);
  EmbeddingExchange exchange;
  std::vector<KeyedJaggedTensor> batches;
  for (int i = 0; i < kBatches; ++i) {
    batches.push_back(make_batch(w, communicator.rank() * kBatches + i, stream));
  }
  LinearLayer linear(w.batch_size, stream);

  std::array<std::vector<double>, kStages> of_stage, used_by_stage;
  std::vector<double> milliseconds;
  for (std::int64_t step = 0; step < w.steps; ++step) {
    communicator.barrier("step begins");
    const double start = benchmark_seconds();
    double last = start, last_used = processor_seconds();
    const auto end_stage = [&](Stage stage) {
      if (print_stages) stream.synchronize();
      const double now = benchmark_seconds(), used = processor_seconds();
      if (step >= kWarmup) {
        of_stage[stage].push_back(1e3 * (now - last));
        used_by_stage[stage].push_back(1e3 * (used - last_used));
      }
      last = now;
      last_used = used;
    };
    embedding.input_dist(batches[step % kBatches], exchange, stream);
    end_stage(kInput);
    embedding.lookup(exchange, stream);
    end_stage(kLookup);
    embedding.output_dist(exchange, stream);
    end_stage(kOutput);
    linear.run(exchange, stream);
    communicator.all_reduce_sum<float>("dense_gradients", linear.d_weights(), stream);
    end_stage(kLinear);
    embedding.output_dist_backward(exchange, stream);
    end_stage(kBackward);
    embedding.update(exchange, step + 1, stream);
    end_stage(kUpdate);
    stream.synchronize();
    communicator.barrier("step ended");
    if (step >= kWarmup) milliseconds.push_back(1e3 * (benchmark_seconds() - start));
  }
  if (communicator.rank() > 0) return;
  const double median = benchmark_median(milliseconds);
  fmt::print(
      "{{\"mode\": \"{}\", \"ids_per_bag\": {}, \"ranks\": {}, \"device\": \"{}\", "
      "\"ms_per_step\": {:.2f}, "
      "\"best_ms\": {:.2f}, \"samples_per_second\": {:.0f}, \"exchange_megabytes\": {:.1f}, "
      "\"megabytes_between_nodes\": {:.1f}, \"floor_megabytes\": {:.1f}, \"GB_per_s\": "
      "{:.1f}}}\n",
      w.mode, w.ids_per_bag, world_size, to_string(stream.device()), median,
      *std::min_element(milliseconds.begin(), milliseconds.end()),
      static_cast<double>(w.batch_size * world_size) / median * 1e3,
      static_cast<double>(exchange.bytes()) / 1e6,
      static_cast<double>(embedding.bytes_between_nodes(exchange)) / 1e6,
      floor_bytes(w, world_size) * 1e-6, floor_bytes(w, world_size) / median * 1e-6);
  std::array<double, kStages> predicted{};
  if (!w.topology.empty()) {
    predicted = predict(w, plan);
    const double sum = std::accumulate(predicted.begin(), predicted.end(), 0.0);
    const double measured = median - benchmark_median(of_stage[kLinear]);
    fmt::print("{{\"predicted_ms\": {:.2f}, \"measured_ms\": {:.2f}, \"ratio\": {:.2f}}}\n", sum,
               measured, sum / measured);
  }
  if (!print_stages) return;
  for (int stage = 0; stage < kStages; ++stage) {
    fmt::print("  {:<22} {:8.2f} ms {:8.2f} ms used", kNames[stage],
               benchmark_median(of_stage[stage]), benchmark_median(used_by_stage[stage]));
    if (!w.topology.empty()) fmt::print(" {:8.2f} ms predicted", predicted[stage]);
    fmt::print("\n");
  }
}

int run(int argc, char** argv) {
  BenchmarkArguments arguments(argc, argv);
  Workload workload;
  workload.mode = arguments.text("--mode", "rw");
  workload.ids_per_bag = arguments.integer("--ids-per-bag", 20);
  workload.batch_size = arguments.integer("--batch-size", 2048);
  workload.steps = std::max<std::int64_t>(arguments.integer("--steps", 20), kWarmup + 1);
  workload.rows = arguments.integer("--rows", 1'000'000);
  workload.ranks_per_node = static_cast<int>(arguments.integer("--ranks-per-node", 1));
  workload.topology = arguments.text("--topology", "");
  const bool stages = arguments.flag("--stages");
  const int ranks = static_cast<int>(arguments.integer("--ranks", 2));
  const std::string device = arguments.text("--device", "cpu");
  arguments.finish();
  return run_benchmark_ranks(ranks, device, [&](Communicator& c, const Stream& stream) {
    run_rank(workload, stages, c, stream);
  });
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  return serrate::run(argc, argv);
}
