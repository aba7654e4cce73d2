#include <fmt/format.h>

#include <csignal>

#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/cli/launch.h"
#include "src/cli/progress.h"
#include "src/cli/put.h"
#include "src/train/train_options.h"

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

void print_stages(const Trainer& trainer) {
  double total = 0;
  for (const auto& [stage, seconds] : trainer.stage_seconds()) total += seconds;
  put("\n{:<24}{:>10}{:>8}\n", "stage (rank 0)", "seconds", "share");
  for (const auto& [stage, seconds] : trainer.stage_seconds()) {
    put("{:<24}{:>10.3f}{:>7.1f}%\n", stage, seconds, 100 * seconds / total);
  }
  put("\n{:<24}{:>10}\n", "memory (rank 0)", "MiB");
  for (const auto& [part, bytes] : trainer.memory_bytes()) {
    put("{:<24}{:>10.1f}\n", part, static_cast<double>(bytes) / (1 << 20));
  }
}

}  // namespace

int train_command(const Arguments& arguments) {
  TrainOptions options;
  LaunchOptions launch_options;
  Options line("train", "Trains a sequence model on a dataset, on any number of ranks.");
  line.add(option_table(options));
  add_launch_options(line, launch_options);
  if (!line.parse(arguments)) return 0;

  stop_on_signals();
  launch_options.threads = options.threads;
  return launch(launch_options, [&](Communicator& communicator) {
    Trainer trainer(options, communicator);
    const bool speaks = communicator.rank() == 0;
    if (speaks) put("{}# world_size={}\n\n", line.effective(), communicator.size());
    Progress progress(trainer.total_steps());
    const bool finished = trainer.run(stop_requested, [&](const StepResult& result) {
      if (speaks) progress.step(result);
    });
    const std::int64_t invalid_ids = trainer.invalid_ids();
    if (speaks) {
      progress.finish();
      if (invalid_ids > 0) {
        put("invalid ids ({}): {}\n", to_string(options.invalid_ids), invalid_ids);
      }
      print_stages(trainer);
      if (!finished) fmt::print(stderr, "serrate: stopped by a signal\n");
    }
    return finished ? 0 : kStoppedExitCode;
  });
}

}  // namespace serrate::cli
