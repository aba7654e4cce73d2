// One training step of a SASRec-class model, the workload of the TorchRec script of
// docs/performance.md: per rank 256 sequences with lognormal lengths, log-uniform item ids, 512
// uniform negatives; item table row-wise Adagrad, dense AdamW. Prints one JSON line;
// cpu_ms_per_step is the processor time of this process, of all ranks that are threads together.
//
// As serrate train does it, the next batch is prepared when a step is queued, and on GPUs losses
// are read a step late. A step's time is that of a round of this loop; on CPUs ranks begin it
// together. floor_megabytes and gigaflop are what a rank's step has to move and to compute at the
// least, and the rates are by them.
// --stages are times by events; on GPUs input_dist runs beside the step before, and waits there;
// of the dense all-reduce there is what outlasts the embedding update.
//
//   train_step_benchmark [--ranks 2] [--device cpu|cuda] [--precision fp32|tf32|bf16]
//   [--batch-size 256] [--items N] [--longest L] [--dim D] [--sharding row_wise]
//   [--reproducible] [--virtual-ranks 16] [--stages]
//   mpirun -n 2 train_step_benchmark ...

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <deque>
#include <numeric>
#include <optional>
#include <random>
#include <set>

#include "benchmarks/benchmark_ranks.h"
#include "serrate/checkpoint.h"
#include "src/run/checkpoint.h"
#include "src/run/options.h"
#include "src/train/step_report.h"
#include "src/train/train_step.h"

namespace serrate {
namespace {

constexpr std::int64_t kNegatives = 512;
constexpr int kBatches = 8, kWarmup = 8;
constexpr std::int64_t kNever = std::int64_t{1} << 60;

double process_seconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

struct Workload {
  std::int64_t batch_size = 256;  // of a rank
  Precision precision = Precision::kFp32;
  std::int64_t items = 1'000'000;
  std::int64_t longest = 256;
  std::int64_t dim = 64;
  std::int64_t micro_batch_tokens = TrainOptions().micro_batch_tokens;
  ShardingType sharding = ShardingType::kRowWise;
  std::int64_t steps = 40;
  std::int64_t checkpoint_every = kNever;  // steps
  std::string checkpoints;                 // directory
  bool reproducible = false;
  int virtual_ranks = TrainOptions().virtual_ranks;
};

TrainOptions options_of(const Workload& w) {
  TrainOptions options;
  options.model = {
      .dim = w.dim, .max_length = w.longest, .dropout = 0.1f, .precision = w.precision};
  options.micro_batch_tokens = w.micro_batch_tokens;
  options.reproducible = w.reproducible;
  options.virtual_ranks = w.virtual_ranks;
  return options;
}

/// What the floor of a step depends on, of one rank.
struct StepCounts {
  double tokens = 0, pairs = 0;  // pairs: of a query and a key that it sees
  double ids = 0, rows = 0;      // that are looked up, and that differ
};

struct Floor {
  double bytes = 0, flop = 0;
};

/// What one rank's step has to read and write, each byte once and nothing between ranks, and to
/// compute: docs/performance_gpu.md has the bytes of a block.
Floor floor_of(const Workload& w, const StepCounts& c, std::int64_t num_weights) {
  const bool is_bf16 = w.precision == Precision::kBf16;
  const SequenceModelOptions model = options_of(w).model;
  const auto dim = static_cast<double>(w.dim), blocks = static_cast<double>(model.num_blocks),
             weights = static_cast<double>(num_weights), wide = 4 * dim;
  const double of_block = is_bf16 ? 134 * dim + 22 * wide : 228 * dim + 44 * wide;
  // The token embedding, forward within the first norm; and the norm behind the blocks, less what
  // the first one does not have: a residual, and memory of its own for its branch's gradient.
  const double of_token = blocks * of_block + 12 * dim + 24 * dim;
  // Lookup: an id, its row, the output. Head: targets, negatives and hidden states, together as
  // many as ids, and their gradients. Update: an id and its gradient; of each row weights and the
  // state, read and written.
  const double of_id = (8 + 8 * dim) + 8 * dim + (8 + 4 * dim);
  // AdamW, and the copies of the weights in bf16.
  const double of_weight = 32 + (is_bf16 ? 2 : 0);
  const double products =
      blocks * (8 * dim * dim + 4 * dim * wide) * c.tokens + 2 * dim * kNegatives * c.tokens;
  return {
      .bytes = c.tokens * of_token + c.ids * of_id + c.rows * (8 * dim + 8) + weights * of_weight,
      .flop = 3 * products + 3.5 * blocks * 4 * dim * c.pairs};
}

NextItemBatch make_batch(const Workload& w, std::mt19937_64& random,
                         const Communicator& communicator, int index, const Stream& stream,
                         StepCounts& counts) {
  const int rank = communicator.rank();
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  const auto zipf_id = [&] {
    const double draw = std::pow(static_cast<double>(w.items), uniform(random));
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(draw), 1, w.items) - 1;
  };
  SequenceBatch sequences;
  sequences.sequence_offsets = {0};
  FeatureBags& items = sequences.features.emplace_back();
  items.offsets = {0};
  for (std::int64_t s = 0; s < w.batch_size; ++s) {
    const double drawn = std::exp(normal(random)) * static_cast<double>(w.longest) / 8.0;
    const auto length = std::clamp<std::int64_t>(static_cast<std::int64_t>(drawn), 1, w.longest);
    for (std::int64_t i = 0; i < length + 1; ++i) {
      items.values.push_back(zipf_id());
      items.offsets.push_back(items.offsets.back() + 1);
    }
    sequences.sample_ids.push_back((index * 64 + rank) * w.batch_size + s);
    sequences.sequence_offsets.push_back(sequences.sequence_offsets.back() + length + 1);
    const auto tokens = static_cast<double>(length);
    counts.tokens += tokens;
    counts.pairs += tokens * (tokens + 1) / 2;
  }
  const BatchShares shares = batch_shares(options_of(w), rank, communicator.size());
  const std::int64_t own = shares.end - shares.begin;
  for (std::int64_t i = 0; i <= own; ++i) {
    sequences.share_offsets.push_back(w.batch_size * i / own);
  }
  BatchShape shape = batch_shape(options_of(w), w.items);
  shape.micro_batch_tokens = tokens_at_once(options_of(w), stream.device().type);
  shape.rank = rank;
  shape.world_size = communicator.size();
  const std::vector<std::int64_t> negatives = draw_negatives(kNegatives, w.items, 1, index);
  std::set<std::int64_t> rows(items.values.begin(), items.values.end());
  rows.insert(negatives.begin(), negatives.end());
  counts.ids += 2 * static_cast<double>(items.values.size()) -
                2 * static_cast<double>(w.batch_size) + kNegatives;
  counts.rows += static_cast<double>(rows.size());
  return make_next_item_batch(sequences, {"item"}, negatives, shape, stream);
}

struct QueuedStep {
  std::int64_t step;
  const NextItemBatch* batch;
  std::int64_t tokens;
  Event is_done;
};

/// Reports the oldest step, and waits for it.
double report(TrainState& state, std::deque<QueuedStep>& queued, const NextItemBatch& next,
              std::int64_t& next_tokens) {
  const QueuedStep& oldest = queued.front();
  oldest.is_done.synchronize();
  const std::vector<double> losses = share_losses(state, *oldest.batch, oldest.step);
  state.times.start(state.stream);
  const StepTotals totals = exchange_reports(
      {.losses = losses, .next_tokens = next.num_tokens(), .words = {}}, state.communicator);
  state.times.lap("step report", state.stream);
  next_tokens = totals.next_tokens;
  const double loss = mean_loss(totals.loss, oldest.tokens);
  queued.pop_front();
  return loss;
}

void run_rank(const Workload& w, bool print_stages, Communicator& communicator,
              const Stream& stream) {
  const EmbeddingTable table{.name = "item",
                             .num_rows = w.items,
                             .dim = w.dim,
                             .features = {"item", kTargetFeature, kNegativeFeature}};
  const ShardingPlan plan{.world_size = communicator.size(),
                          .tables = {shard_table(table, w.sharding, communicator.size())}};
  TrainState state({table}, plan, options_of(w), communicator, stream);
  std::mt19937_64 random(communicator.rank());
  std::vector<NextItemBatch> batches;
  StepCounts counts;
  for (int i = 0; i < kBatches; ++i) {
    batches.push_back(make_batch(w, random, communicator, i, stream, counts));
  }
  for (double* count : {&counts.tokens, &counts.pairs, &counts.ids, &counts.rows}) {
    *count /= kBatches;
  }
  const Floor floor = floor_of(w, counts, state.encoder.parameters().size());

  std::optional<CheckpointWriter> writer;
  if (w.checkpoint_every < kNever) writer.emplace(w.checkpoints, 2, communicator);
  std::vector<double> milliseconds, cpu_milliseconds, copies;
  double process_start = 0;  // processor time of all threads, the writing ones too
  double loss = 0;
  std::int64_t tokens = 0;
  std::deque<QueuedStep> queued;
  const bool on_gpu = stream.device().type == DeviceType::kCuda;
  const std::size_t steps_ahead = on_gpu ? 1 : 0;
  std::int64_t next_tokens = count_tokens(batches[0], communicator);
  prepare_batch(state, batches[0]);
  for (int step = 0; step < w.steps; ++step) {
    if (step == kWarmup) {
      state.times = {};
      state.times.measure();
      process_start = process_seconds();
    }
    if (!on_gpu) communicator.barrier("step begins");
    const double start = benchmark_seconds();
    const std::clock_t cpu_start = std::clock();
    const NextItemBatch& batch = batches[step % kBatches];
    const NextItemBatch& next = batches[(step + 1) % kBatches];
    train_step(state, batch, next_tokens, step + 1);
    queued.push_back({step + 1, &batch, next_tokens, Event(stream.device())});
    queued.back().is_done.record(stream);
    if (step >= kWarmup) tokens += next_tokens;
    prepare_batch(state, next);
    if (queued.size() > steps_ahead) {
      loss = report(state, queued, next, next_tokens);
    } else {
      next_tokens = count_tokens(next, communicator);
    }
    if (writer) {
      writer->poll();
      if ((step + 1) % w.checkpoint_every == 0) {
        const double copied = benchmark_seconds();
        writer->start(step + 1, checkpoint_state(state), stream);
        copies.push_back(1e3 * (benchmark_seconds() - copied));
      }
    }
    if (!on_gpu) communicator.barrier("step ended");
    if (step < kWarmup) continue;
    milliseconds.push_back(1e3 * (benchmark_seconds() - start));
    cpu_milliseconds.push_back(1e3 * static_cast<double>(std::clock() - cpu_start) /
                               CLOCKS_PER_SEC);
  }
  while (!queued.empty()) loss = report(state, queued, batches[0], next_tokens);
  if (writer) writer->finish();
  communicator.barrier("all done");
  const double process_milliseconds =
      1e3 * (process_seconds() - process_start) / static_cast<double>(w.steps - kWarmup);
  if (communicator.rank() > 0) return;
  const double mean = std::accumulate(milliseconds.begin(), milliseconds.end(), 0.0) /
                      static_cast<double>(milliseconds.size());
  const double median = benchmark_median(milliseconds);
  const double tokens_per_step =
      static_cast<double>(tokens) / static_cast<double>(w.steps - kWarmup);
  fmt::print(
      "{{\"ms_per_step\": {:.2f}, \"mean_ms\": {:.2f}, \"cpu_ms_per_step\": {:.2f}, \"copy_ms\": "
      "{:.2f}, \"process_cpu_ms\": {:.2f}, \"tokens_per_second\": "
      "{:.0f}, \"sequences_per_second\": {:.0f}, "
      "\"ranks\": {}, \"device\": \"{}\", \"precision\": \"{}\", \"items\": {}, \"longest\": {}, "
      "\"dim\": {}, \"sharding\": \"{}\", "
      "\"reproducible\": {}, \"tokens_per_step\": {:.0f}, \"floor_megabytes\": {:.1f}, "
      "\"gigaflop\": {:.2f}, \"GB_per_s\": {:.1f}, \"TFLOP_per_s\": {:.3f}, \"loss\": {:.4f}}}\n",
      median, mean, benchmark_median(cpu_milliseconds),
      copies.empty() ? 0 : benchmark_median(copies), process_milliseconds,
      tokens_per_step / median * 1e3,
      static_cast<double>(w.batch_size * communicator.size()) / median * 1e3, communicator.size(),
      to_string(stream.device()), to_string(w.precision), w.items, w.longest, w.dim,
      to_string(w.sharding), w.reproducible, tokens_per_step, floor.bytes * 1e-6, floor.flop * 1e-9,
      floor.bytes / median * 1e-6, floor.flop / median * 1e-9, loss);
  if (!print_stages) return;
  for (const auto& [stage, seconds] : state.times.seconds()) {
    fmt::print("  {:<22} {:8.2f} ms\n", stage,
               1e3 * seconds / static_cast<double>(w.steps - kWarmup));
  }
}

int run(int argc, char** argv) {
  BenchmarkArguments arguments(argc, argv);
  Workload workload;
  workload.batch_size = arguments.integer("--batch-size", workload.batch_size);
  workload.precision =
      precision_from_string(arguments.text("--precision", to_string(workload.precision)));
  workload.items = arguments.integer("--items", workload.items);
  workload.longest = arguments.integer("--longest", workload.longest);
  workload.dim = arguments.integer("--dim", workload.dim);
  workload.micro_batch_tokens =
      arguments.integer("--micro-batch-tokens", workload.micro_batch_tokens);
  workload.sharding =
      sharding_type_from_string(arguments.text("--sharding", to_string(workload.sharding)));
  workload.reproducible = arguments.flag("--reproducible");
  workload.virtual_ranks =
      static_cast<int>(arguments.integer("--virtual-ranks", workload.virtual_ranks));
  workload.steps =
      std::max<std::int64_t>(arguments.integer("--steps", workload.steps), kWarmup + 1);
  workload.checkpoint_every = arguments.integer("--checkpoint-every", kNever);
  workload.checkpoints = arguments.text("--checkpoints", "train_step_benchmark.checkpoints");
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
