#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>

#include "serrate/communicator.h"

namespace serrate {

/// Whether mpirun, or srun with a PMI, started this process. Looks at the environment only.
bool launched_by_mpirun();

/// Owns MPI of this process, from MPI_Init to MPI_Finalize; MPI calls may come from any thread,
/// from one at a time. In MPI_Init and MPI_Finalize a rank waits for its peers, and ends itself
/// with exit code 75 when they do not come within the deadlines: a peer may be lost, or another
/// program that never calls MPI. An error has to leave main through abort_job.
class MpiRuntime {
 public:
  explicit MpiRuntime(std::chrono::milliseconds start_deadline = std::chrono::minutes(2),
                      std::chrono::seconds finalize_deadline = std::chrono::seconds(30));
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

 private:
  std::chrono::seconds finalize_deadline_;
};

/// Ends all ranks of the job, and mpirun with this exit code, within seconds, also when peers are
/// stopped or lost.
[[noreturn]] void abort_job(int exit_code) noexcept;

/// All ranks that mpirun started, as one group. `max_count` bounds the counts given to one MPI
/// call; what is larger goes in several.
std::unique_ptr<Communicator> make_mpi_communicator(
    std::chrono::milliseconds deadline, std::int64_t max_count = std::numeric_limits<int>::max());

}  // namespace serrate
