#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "serrate/mpi_communicator.h"
#include "serrate/stream.h"

/// A job whose rank 1 leaves the common sequence of exchanges at its fifth step, as a bug or
/// another version of the program would make it do. Arguments: what rank 1 does (other, size, skip,
/// extra, return), the deadline in milliseconds.
int main(int, char** argv) {
  const serrate::MpiRuntime runtime;
  const std::string what = argv[1];
  try {
    const auto communicator =
        serrate::make_mpi_communicator(std::chrono::milliseconds(std::atoi(argv[2])));
    for (int step = 0; step < 10; ++step) {
      if (step != 4 || communicator->rank() != 1) {
        communicator->gather_int64(step % 2 == 0 ? "step" : "odd step", step);
        continue;
      }
      if (what == "other") {
        std::int64_t value = step;
        communicator->sum<std::int64_t>("other", {&value, 1});
      } else if (what == "size") {
        std::vector<std::int64_t> values(3);
        communicator->sum<std::int64_t>("step", values);
      } else if (what == "extra") {
        communicator->gather_int64("step", step);
        communicator->gather_int64("extra", step);
      } else if (what == "return") {
        return 0;
      }  // skip: nothing
    }
    fmt::print(stderr, "rank {} did not notice\n", communicator->rank());
  } catch (const serrate::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    serrate::abort_job(error.exit_code());
  }
}
