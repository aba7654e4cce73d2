#pragma once

#include <nccl.h>

#include <cstdint>
#include <optional>

namespace simt {

/// What a test lets happen to one launch (a call or a group of calls) of a rank.
struct NcclFault {
  enum class Effect {
    kRefused,      ///< NCCL returns `error` and launches nothing, as when memory runs out
    kFails,        ///< ncclCommGetAsyncError says `error` from then on, as when a peer is lost
    kNeverQueued,  ///< NCCL stays in progress, as when a connection does not come about
    kNeverRuns,    ///< the stream does not get past it, as when a GPU hangs
  };

  int rank = 0;              // in the communicator
  std::uint64_t launch = 0;  // number of the launch on the communicator, from 0
  Effect effect = Effect::kRefused;
  ncclResult_t error = ncclSuccess;
};
/// For all communicators from now on; none takes it back.
void plant_nccl_fault(const std::optional<NcclFault>& fault);

}  // namespace simt
