#include <fmt/format.h>

#include "comm/agreement.h"
#include "serrate/error.h"
#include "serrate/mpi_communicator.h"
#include "serrate/nccl_communicator.h"
#include "serrate/rank_device.h"
#include "src/cli/launch.h"
#include "src/core/json.h"

namespace serrate::cli {
namespace {

/// NCCL between ranks on GPUs, which share one only where its number was given.
void connect_gpus(std::unique_ptr<Communicator>& communicator, const LaunchOptions& options) {
  require_agreement(*communicator, "--device", json_string(options.device));
  const DeviceChoice choice = device_choice_from_string(options.device);
  const Device device = choose_device(choice, *communicator);
  if (device.type == DeviceType::kCpu) return;
  communicator =
      make_nccl_communicator(std::move(communicator), device,
                             {.sharing = choice.index ? GpuSharing::kAllowed : GpuSharing::kRefused,
                              .recorder_folder = options.output});
}

}  // namespace

int launch_processes(const LaunchOptions& options, const RankMain& rank_main) {
  const MpiRuntime mpi(options.timeout);
  auto communicator = make_mpi_communicator(options.timeout);
  try {
    if (options.ranks == 0) {
      connect_gpus(communicator, options);
      return run_rank(*communicator, rank_main);
    }
    if (communicator->size() == 1) return launch_threads(options, rank_main);
    throw usage_error(
        fmt::format("--ranks {} (mpirun has started {} ranks): leave out one of the two",
                    options.ranks, communicator->size()));
  } catch (const std::exception& error) {
    abort_job(report(error));
  }
}

}  // namespace serrate::cli
