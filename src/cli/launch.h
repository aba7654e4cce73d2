#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <string>

#include "serrate/communicator.h"
#include "src/cli/options.h"

namespace serrate::cli {

struct LaunchOptions {
  int ranks = 0;  ///< threads of this process; 0 means the processes of mpirun, or one thread
  std::chrono::milliseconds timeout{120'000};
  std::int64_t threads = 1;    ///< OpenMP threads that a rank will start, itself included
  std::string device = "cpu";  ///< of rank_main, as choose_device takes it
  std::string output;  ///< folder for what processes on GPUs leave behind when they fail; or none
};

/// What one rank does; returns its exit code.
using RankMain = std::function<int(Communicator&)>;

/// --ranks and --timeout.
void add_launch_options(Options& options, LaunchOptions& launch_options);

/// Calls `rank_main` on every rank, as threads or as the processes of mpirun; returns an exit code
/// that is 0 only if all were. An Error names the rank it was found on; threads throw it, a process
/// reports it and ends all of the job. Throws Error (usage) when the threads cannot all be started,
/// which OpenMP would end the process for.
int launch(const LaunchOptions& options, const RankMain& rank_main);

/// The two ways; launch_processes is a file of its own, which a build without MPI replaces.
int launch_threads(const LaunchOptions& options, const RankMain& rank_main);
int launch_processes(const LaunchOptions& options, const RankMain& rank_main);

/// rank_main, with the rank put before the message of an Error.
int run_rank(Communicator& communicator, const RankMain& rank_main);

/// Prints "serrate: ..."; returns the exit code that belongs to the error.
int report(const std::exception& error);

}  // namespace serrate::cli
