#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <ostream>
#include <string>

#include "serrate/communicator.h"

namespace serrate {

/// Where the ranks of the suite come from, and where their rows are: `run` makes a fresh group with
/// a deadline and runs a body on each of its ranks that lives in this process.
struct Ranks {
  std::string name;
  int size = 1;
  Device device;
  std::function<void(std::chrono::milliseconds, const std::function<void(Communicator&)>&)> run;

  friend std::ostream& operator<<(std::ostream& out, const Ranks& ranks) {
    return out << ranks.name;
  }
};

/// How many ranks mpirun started: MPI is not yet there when a suite is instantiated.
inline int mpirun_size() {
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");
  return size ? std::stoi(size) : 1;
}

/// What every implementation of Communicator has to do; instantiated for each in its own test.
class CommunicatorConformance : public testing::TestWithParam<Ranks> {
 protected:
  int size() const { return GetParam().size; }
  /// The deadline is for a suite that hangs, with room for slow sanitizer runs.
  void run(const std::function<void(Communicator&, const Stream&)>& body,
           std::chrono::milliseconds deadline = std::chrono::seconds(30)) const {
    GetParam().run(deadline, [&](Communicator& communicator) {
      const Stream stream(GetParam().device);
      body(communicator, stream);
    });
  }
};

/// Exchanges of random jagged rows of several types and sizes, against what a naive loop over all
/// pairs of ranks says each should have received.
void check_random_exchanges(Communicator& communicator, int num_exchanges, const Stream& stream);

}  // namespace serrate
