#include <fmt/format.h>

#include <atomic>

#include "comm/launcher.h"
#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/cli/launch.h"
#include "src/cli/progress.h"
#include "src/cli/put.h"
#include "src/cli/stop_signals.h"
#include "src/cli/supervise.h"
#include "src/core/say.h"
#include "src/run/options.h"

namespace serrate::cli {
namespace {

constexpr int kStoppedExitCode = 75;

void print_stages(const Trainer& trainer) {
  if (trainer.stage_seconds().empty()) return;  // no step was left to do
  const bool on_gpu = trainer.options().device != "cpu";
  const auto is_beside = [&](const std::string& stage) { return on_gpu && stage == "input_dist"; };
  double total = 0;
  for (const auto& [stage, seconds] : trainer.stage_seconds()) {
    if (!is_beside(stage)) total += seconds;
  }
  put("\n{:<24}{:>10}{:>8}\n", "stage (rank 0)", "seconds", "share");
  for (const auto& [stage, seconds] : trainer.stage_seconds()) {
    if (is_beside(stage)) {
      put("{:<24}{:>10.3f}  beside the step before\n", stage, seconds);
    } else {
      put("{:<24}{:>10.3f}{:>7.1f}%\n", stage, seconds, total > 0 ? 100 * seconds / total : 0.0);
    }
  }
  put("\n{:<24}{:>10}\n", "memory (rank 0)", "MiB");
  for (const auto& [part, bytes] : trainer.memory_bytes()) {
    put("{:<24}{:>10.1f}\n", part, static_cast<double>(bytes) / (1 << 20));
  }
}

int train(const TrainOptions& options, const LaunchOptions& launch_options, const Options& line,
          const std::atomic<bool>& stop, Attempt* attempt) {
  return launch(launch_options, [&](Communicator& communicator) {
    Trainer trainer(options, communicator);
    if (attempt) attempt->has_begun = true;
    const bool speaks = communicator.rank() == 0;
    if (speaks) {
      put("{}# world_size={} device={}\n\n", line.effective(), communicator.size(),
          trainer.options().device);
    }
    Progress progress(trainer.total_steps());
    const bool finished = trainer.run(stop, [&](const StepResult& result) {
      if (speaks) progress.step(result);
    });
    const std::int64_t invalid_ids = trainer.invalid_ids();
    if (speaks) {
      progress.finish();
      if (invalid_ids > 0) {
        put("invalid ids ({}): {}\n", to_string(options.invalid_ids), invalid_ids);
      }
      print_stages(trainer);
      if (finished) {
        put("\nthe model is in {0}: serrate evaluate --data {1} --model {0}\n", options.output,
            options.data);
      } else {
        say("stopped by a signal; the same command goes on");
      }
    }
    if (!finished && attempt) attempt->was_stopped = true;
    return finished ? 0 : kStoppedExitCode;
  });
}

}  // namespace

int train_command(const Arguments& arguments) {
  TrainOptions options;
  LaunchOptions launch_options;
  int max_restarts = 0;
  Options line("train", "Trains a sequence model on a dataset, on any number of ranks.");
  line.add(option_table(options));
  add_launch_options(line, launch_options);
  line.add(option("max-restarts", max_restarts,
                  "how often a lost job is started again; not under mpirun", {0, 1'000'000}));
  if (!line.parse(arguments)) return 0;
  launch_options.threads = options.threads;
  launch_options.device = options.device;
  launch_options.output = options.output;
  if (max_restarts == 0) return train(options, launch_options, line, stop_on_signals(), nullptr);

  if (launched_rank()) {
    throw usage_error(
        "--max-restarts is for ranks that are threads (mpirun ends all of its processes when one "
        "is lost): start mpirun again instead, when it ends with 75 or by a signal: "
        "docs/command.md");
  }
  return supervise(max_restarts, [&](Attempt& attempt) {
    if (attempt.has_begun) options.fresh = false;  // what is resumed is the fresh run
    return train(options, launch_options, line, stop_on_signals(), &attempt);
  });
}

}  // namespace serrate::cli
