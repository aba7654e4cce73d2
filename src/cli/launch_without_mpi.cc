#include "serrate/error.h"
#include "src/cli/launch.h"

namespace serrate::cli {

int launch_processes(const LaunchOptions&, const RankMain&) {
  throw usage_error("started by mpirun (this build has no MPI): use --ranks instead");
}

}  // namespace serrate::cli
