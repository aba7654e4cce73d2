#include <fmt/format.h>

#include "serrate/error.h"
#include "serrate/mpi_communicator.h"
#include "src/cli/launch.h"

namespace serrate::cli {

int launch_processes(const LaunchOptions& options, const RankMain& rank_main) {
  const MpiRuntime mpi(options.timeout);
  const auto communicator = make_mpi_communicator(options.timeout);
  try {
    if (options.ranks == 0) return run_rank(*communicator, rank_main);
    if (communicator->size() == 1) return launch_threads(options, rank_main);
    throw usage_error(
        fmt::format("--ranks {} (mpirun has started {} ranks) leave out one of the two",
                    options.ranks, communicator->size()));
  } catch (const std::exception& error) {
    abort_job(report(error));
  }
}

}  // namespace serrate::cli
