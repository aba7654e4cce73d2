#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "serrate/communicator.h"
#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// Whether two ranks may have one GPU. NCCL is not made for it: it is slow, and for tests. It goes
/// by way of NCCL_HOSTID and other variables that are set for the process where they are not.
enum class GpuSharing { kRefused, kAllowed };

struct NcclOptions {
  GpuSharing sharing = GpuSharing::kRefused;
  /// Where flight_recorder.rank1.json, the last operations of rank 1, is written when one fails;
  /// nowhere if empty.
  std::filesystem::path recorder_folder = {};
  /// What is done about an operation that the GPUs do not end within the deadline, or that NCCL
  /// reports as failed. Called by another thread, once, when the rank's communicators have been
  /// aborted (but for one that is stuck in a call of NCCL for 5 s more): streams that waited for
  /// them go on, with rows that are not to be used. If there is no such function, the error goes to
  /// stderr and the process ends with its exit code.
  std::function<void(const Error&)> on_failure = {};
};

/// Collective. Ranks that have a GPU each, `device`, whose payload NCCL moves; host collectives and
/// the headers of all exchanges go through `host`. Errors: two ranks have the same GPU and may not
/// share it; NCCL does not start. If this build is without NCCL, or there is only one rank: `host`,
/// whose MPI moves rows through pinned host memory, which rank 0 says.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     Device device, NcclOptions options = {});

}  // namespace serrate
