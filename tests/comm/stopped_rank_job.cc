#include <fmt/format.h>

#include <csignal>
#include <cstdlib>

#include "serrate/error.h"
#include "serrate/mpi_communicator.h"

/// A job whose rank 1 stops, as a process of a sick machine does, before its fifth step.
/// Argument: the deadline in milliseconds.
int main(int, char** argv) {
  const serrate::MpiRuntime runtime;
  try {
    const auto communicator =
        serrate::make_mpi_communicator(std::chrono::milliseconds(std::atoi(argv[1])));
    for (int step = 0; step < 10; ++step) {
      if (step == 4 && communicator->rank() == 1) {
        fmt::print(stderr, "stopping\n");
        std::raise(SIGSTOP);
      }
      communicator->gather_int64("step", step);
    }
    fmt::print(stderr, "rank {} did not notice\n", communicator->rank());
  } catch (const serrate::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    serrate::abort_job(error.exit_code());
  }
}
