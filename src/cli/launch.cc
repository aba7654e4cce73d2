#include "src/cli/launch.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <latch>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "comm/launcher.h"
#include "serrate/error.h"
#include "serrate/thread_communicator.h"
#include "src/core/say.h"

namespace serrate::cli {
namespace {

constexpr int kMostRanks = 1024;  // threads of one process
constexpr std::int64_t kMostThreads = 1 << 14;

/// Starts as many threads as the ranks of this process will need together, and ends them.
void check_threads(std::int64_t ranks, std::int64_t threads) {
  const std::int64_t count = ranks * threads;
  if (count > kMostThreads) {
    throw usage_error(fmt::format("--ranks {} --threads {} need {} threads (at most {}): use fewer",
                                  ranks, threads, count, kMostThreads));
  }
  std::latch all_started(1);
  std::vector<std::jthread> started;  // ended before the latch is gone
  try {
    while (std::ssize(started) < count - 1) started.emplace_back([&] { all_started.wait(); });
    all_started.count_down();
  } catch (const std::system_error& error) {
    all_started.count_down();
    throw usage_error(fmt::format(
        "--ranks {} --threads {} need {} threads, but this machine or a limit (processes, memory) "
        "allows {} ({}): use fewer",
        ranks, threads, count, started.size() + 1, error.code().message()));
  }
}

std::string message_of(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error)) {
    return "out of memory (of this machine, or of a limit such as ulimit -v): use fewer ranks or "
           "threads, smaller batches or a smaller model";
  }
  if (const auto* system = dynamic_cast<const std::system_error*>(&error);
      system && system->code() == std::errc::resource_unavailable_try_again) {
    return "no more threads can be started (too many for this machine, or for a limit of processes "
           "or memory): use fewer ranks or threads";
  }
  return error.what();
}

}  // namespace

void add_launch_options(Options& options, LaunchOptions& launch_options) {
  options.add(option("ranks", launch_options.ranks,
                     "ranks, as threads of one process; mpirun starts its own", {0, kMostRanks}));
  options.add(option("timeout", launch_options.timeout,
                     "how long a rank waits for its peers in an exchange"));
}

int run_rank(Communicator& communicator, const RankMain& rank_main) {
  try {
    return rank_main(communicator);
  } catch (const std::exception& error) {
    const bool names_rank = std::string_view(error.what()).starts_with("rank ");
    if (communicator.size() == 1 || names_rank) throw;
    const auto* known = dynamic_cast<const Error*>(&error);
    throw Error(fmt::format("rank {}: {}", communicator.rank(), message_of(error)),
                known ? known->kind() : ErrorKind::kFailure);
  }
}

int launch_threads(const LaunchOptions& options, const RankMain& rank_main) {
  std::atomic<int> exit_code{0};
  run_thread_ranks(std::max(options.ranks, 1), options.timeout, [&](Communicator& communicator) {
    if (const int code = run_rank(communicator, rank_main)) exit_code = code;
  });
  return exit_code;
}

int launch(const LaunchOptions& options, const RankMain& rank_main) {
  check_threads(launched_rank() ? 1 : std::max(options.ranks, 1), options.threads);
  return launched_rank() ? launch_processes(options, rank_main)
                         : launch_threads(options, rank_main);
}

// Ranks mostly fail alike, and mpirun ends the others a second after rank 0 has: what they would
// only repeat is never printed.
int report(const std::exception& error) {
  if (launched_rank().value_or(0) > 0) {
    std::signal(SIGTERM, SIG_DFL);
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  }
  std::fflush(stdout);  // what ended the job otherwise takes with it
  say(message_of(error));
  const auto* known = dynamic_cast<const Error*>(&error);
  return known ? known->exit_code() : 1;
}

}  // namespace serrate::cli
