#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "serrate/error.h"
#include "serrate/mpi_communicator.h"
#include "serrate/nccl_communicator.h"

namespace {

using namespace serrate;

void run_steps(Communicator& communicator, Device device, int signal) {
  const Stream stream(device);
  Buffer<float> value = Buffer<float>::zeros(1, stream);
  for (int step = 0; step < 10; ++step) {
    if (step == 4 && communicator.rank() == 1) {
      fmt::print(stderr, "stopping\n");
      std::raise(signal);
    }
    communicator.all_reduce_sum("step", value.span(), stream);
    stream.synchronize();
  }
  fmt::print(stderr, "rank {} did not notice\n", communicator.rank());
}

}  // namespace

/// A job whose rank 1 stops, as a process of a sick machine does, before its fifth step.
/// Arguments: the deadline in milliseconds; "nccl" to compute on a GPU that the ranks share; "kill"
/// for a rank that is gone.
int main(int argc, char** argv) {
  const MpiRuntime runtime;
  try {
    auto communicator = make_mpi_communicator(std::chrono::seconds(30));  // to start in
    Device device = Device::cpu();
    const std::vector<std::string_view> options(argv + 2, argv + argc);
    if (std::ranges::count(options, "nccl") > 0) {
      device = Device::cuda(0);
      communicator = make_nccl_communicator(std::move(communicator), device,
                                            {.sharing = GpuSharing::kAllowed});
    }
    communicator->set_deadline(std::chrono::milliseconds(std::atoi(argv[1])));
    run_steps(*communicator, device, std::ranges::count(options, "kill") > 0 ? SIGKILL : SIGSTOP);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    abort_job(error.exit_code());
  }
}
