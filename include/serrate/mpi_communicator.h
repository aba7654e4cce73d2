#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>

#include "serrate/communicator.h"

namespace serrate {

/// Whether mpirun, or srun with a PMI, started this process. Looks at the environment only.
bool launched_by_mpirun();

/// Owns MPI of this process, from MPI_Init to MPI_Finalize. Calls may come from any thread, from
/// one at a time. An error that leaves main has to go through abort_job, since a rank that waits
/// for its peers in MPI_Finalize after an error would hang.
class MpiRuntime {
 public:
  MpiRuntime();
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;
};

/// Ends all ranks of the job, and mpirun with this exit code, within seconds, also when peers are
/// stopped or lost.
[[noreturn]] void abort_job(int exit_code) noexcept;

/// All ranks that mpirun started, as one group. `max_count` bounds the counts given to one MPI
/// call; what is larger goes in several.
std::unique_ptr<Communicator> make_mpi_communicator(
    std::chrono::milliseconds deadline, std::int64_t max_count = std::numeric_limits<int>::max());

}  // namespace serrate
