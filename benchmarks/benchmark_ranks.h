#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "benchmarks/benchmark_arguments.h"
#include "serrate/communicator.h"
#include "serrate/nccl_communicator.h"
#include "serrate/rank_device.h"
#include "serrate/thread_communicator.h"
#if SERRATE_WITH_MPI
#include "serrate/mpi_communicator.h"
#endif

namespace serrate {

inline double benchmark_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double benchmark_median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

/// Runs `body` on the ranks of mpirun when it started this program, else on `ranks` threads, each
/// with a stream of its device: `--device` of serrate train, and what that means.
inline int run_benchmark_ranks(int ranks, const std::string& device_option,
                               const std::function<void(Communicator&, const Stream&)>& body) {
  constexpr std::chrono::minutes kDeadline{2};
  const DeviceChoice choice = device_choice_from_string(device_option);
#if SERRATE_WITH_MPI
  if (launched_by_mpirun()) {
    try {
      MpiRuntime runtime;
      auto communicator = make_mpi_communicator(kDeadline);
      const Stream stream(choose_device(choice, *communicator));
      if (stream.device().type == DeviceType::kCuda) {
        const auto sharing = choice.index ? GpuSharing::kAllowed : GpuSharing::kRefused;
        communicator =
            make_nccl_communicator(std::move(communicator), stream.device(), {.sharing = sharing});
      }
      body(*communicator, stream);
      return 0;
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      abort_job(1);
    }
  }
#endif
  run_thread_ranks(ranks, kDeadline, [&](Communicator& communicator) {
    body(communicator, Stream(choose_device(choice, communicator)));
  });
  return 0;
}

}  // namespace serrate
