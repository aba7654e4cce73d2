#include <fmt/format.h>

#include <csignal>

#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/cli/launch.h"
#include "src/cli/progress.h"

namespace serrate::cli {
namespace {

constexpr int kStoppedExitCode = 75;

std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// The first signal asks for an orderly end, a second one ends the process.
void stop_on_signals() {
  struct sigaction action = {};
  action.sa_handler = [](int) { stop_requested = true; };
  action.sa_flags = SA_RESETHAND;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);  // the one that mpirun passes on and does not act on
}

void add_train_options(Options& line, TrainOptions& options) {
  line.add("data", options.data, "dataset file", Options::Need::kRequired);
  line.add("output", options.output, "run directory, made new", Options::Need::kRequired);
  line.add("plan", options.plan,
           "sharding plan, or auto: the planner's; without one, tables are spread evenly");
  line.add("topology", options.topology, "machines that --plan auto plans for: a topology file");
  line.add("sharding-types", options.sharding_types, "that --plan auto may use; any by default");
  line.add("memory-limit", options.memory_limit,
           "of a rank, such as 8GiB; by default what the machine has to give");
  line.add("ranks-per-node", options.ranks_per_node,
           "consecutive ranks that share a node; 0: as the plan says, or all");
  line.add("metrics", options.metrics, "file of a JSON line a step; metrics.jsonl in --output");
  line.add("epochs", options.epochs, "passes over the data", 1);
  line.add("steps", options.steps, "steps instead of --epochs, when above 0");
  line.add("micro-batch-tokens", options.micro_batch_tokens,
           "tokens that pass through the encoder at once", 1);
  line.add("seed", options.seed, "of order, weights, negatives and dropout");
  line.add("threads", options.threads, "OpenMP threads of a rank", 1);
  line.add("reproducible", options.reproducible,
           "the same bits on any number of ranks and threads, and with any plan");
  line.add("virtual-ranks", options.virtual_ranks,
           "shares of a batch that --reproducible sums in a tree", 1);
  line.add("checkpoint-every", options.checkpoint_every,
           "steps (500) or time (10min) between checkpoints; one at the end otherwise");
  line.add("keep", options.keep_checkpoints, "newest checkpoints that stay", 1);
  line.add("fresh", options.fresh, "moves an earlier run in --output aside, instead of resuming");
  line.add("learning-rate", options.dense_optimizer.learning_rate, "of the dense weights");
  line.add("weight-decay", options.dense_optimizer.weight_decay, "of the dense weights");
  line.add("embedding-learning-rate", options.sparse_optimizer.learning_rate, "of the embeddings");
  line.add("heads", options.model.num_heads, "attention heads", 1);
  line.add("dropout", options.model.dropout, "share of activations left out");
  line.add("activation", options.model.activation, "inside a block", "gelu|relu|silu",
           activation_from_string);
  line.add("temperature", options.model.temperature, "scores are divided by it");
  line.add("l2-normalize", options.model.l2_normalize, "scores by cosine");
}

void print_stages(const Trainer& trainer) {
  double total = 0;
  for (const auto& [stage, seconds] : trainer.stage_seconds()) total += seconds;
  fmt::print("\n{:<24}{:>10}{:>8}\n", "stage (rank 0)", "seconds", "share");
  for (const auto& [stage, seconds] : trainer.stage_seconds()) {
    fmt::print("{:<24}{:>10.3f}{:>7.1f}%\n", stage, seconds, 100 * seconds / total);
  }
  fmt::print("\n{:<24}{:>10}\n", "memory (rank 0)", "MiB");
  for (const auto& [part, bytes] : trainer.memory_bytes()) {
    fmt::print("{:<24}{:>10.1f}\n", part, static_cast<double>(bytes) / (1 << 20));
  }
}

}  // namespace

void add_table_options(Options& line, TrainOptions& options) {
  line.add("split", options.split, "what is held out: last-item, last-basket or time");
  line.add("time-quantile", options.time_quantile, "where --split time cuts the events");
  line.add("batch-size", options.batch_size, "sequences of all ranks together", 1);
  line.add("windows", options.windows, "of a user: the latest events, or all of the history",
           "latest|all", training_windows_from_string);
  line.add("negatives", options.negatives, "items drawn a step; 0 scores them all");
  line.add("optimizer", options.sparse_optimizer.type, "of the embeddings",
           "sgd|adagrad|row_wise_adagrad|adam", sparse_optimizer_from_string);
  line.add("invalid-ids", options.invalid_ids, "what an id outside its table does",
           "error|drop|oov", invalid_ids_from_string);
  line.add("features", options.model.features, "categorical columns that join the item");
  line.add("dim", options.model.dim, "width of the model", 1);
  line.add("blocks", options.model.num_blocks, "attention blocks");
  line.add("feed-forward", options.model.feed_forward_dim, "width inside a block; 0: 4 x dim");
  line.add("max-length", options.model.max_length, "latest events a sequence keeps", 1);
}

int train_command(const Arguments& arguments) {
  TrainOptions options;
  LaunchOptions launch_options;
  Options line("train", "Trains a sequence model on a dataset, on any number of ranks.");
  add_train_options(line, options);
  add_table_options(line, options);
  add_launch_options(line, launch_options);
  if (!line.parse(arguments)) return 0;

  stop_on_signals();
  return launch(launch_options, [&](Communicator& communicator) {
    Trainer trainer(options, communicator);
    const bool speaks = communicator.rank() == 0;
    if (speaks) fmt::print("{}# world_size={}\n\n", line.effective(), communicator.size());
    Progress progress(trainer.total_steps());
    const bool finished = trainer.run(stop_requested, [&](const StepResult& result) {
      if (speaks) progress.step(result);
    });
    const std::int64_t invalid_ids = trainer.invalid_ids();
    if (speaks) {
      progress.finish();
      if (invalid_ids > 0) {
        fmt::print("invalid ids ({}): {}\n", to_string(options.invalid_ids), invalid_ids);
      }
      print_stages(trainer);
      if (!finished) fmt::print(stderr, "serrate: stopped by a signal\n");
    }
    return finished ? 0 : kStoppedExitCode;
  });
}

}  // namespace serrate::cli
