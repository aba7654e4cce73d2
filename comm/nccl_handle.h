#pragma once

#include <nccl.h>

#include <chrono>
#include <functional>
#include <mutex>
#include <string>

#include "serrate/stream.h"

namespace serrate {

/// An ncclComm_t whose calls do not block (blocking = 0): a peer that is lost could otherwise keep
/// this rank inside NCCL for ever. The rank's thread and the watchdog's use it, one at a time.
class NcclHandle {
 public:
  using Clock = std::chrono::steady_clock;

  /// Collective; `start` tells how it went.
  NcclHandle() = default;
  /// Aborts, unless finish() went well.
  ~NcclHandle();
  NcclHandle(const NcclHandle&) = delete;
  NcclHandle& operator=(const NcclHandle&) = delete;

  // The result of these is ncclInProgress when NCCL was not ready by the deadline, and
  // ncclInvalidUsage when the handle was aborted meanwhile.

  /// Collective: joins the ranks that have `id`.
  ncclResult_t start(const ncclUniqueId& id, int rank, int size, Device device,
                     Clock::time_point deadline);
  /// `calls` as one group. On return what it asked for is in its stream.
  ncclResult_t group(const std::function<ncclResult_t(ncclComm_t)>& calls,
                     Clock::time_point deadline);
  /// Collective: waits for the end of all that is in streams, and frees the handle.
  ncclResult_t finish(Clock::time_point deadline);

  /// What went wrong since, ncclSuccess, or ncclInProgress. Does not wait for other calls.
  ncclResult_t async_error();
  /// Ends what is under way. Does not wait for other calls for long: one of them may hang.
  void abort() noexcept;

 private:
  ncclResult_t wait(Clock::time_point deadline);

  std::timed_mutex mutex_;
  ncclComm_t comm_ = nullptr;  // null before start() and after abort() or finish()
};

/// "NCCL: remote process exited or there was a network error", with what NCCL says beyond.
std::string nccl_message(ncclResult_t result);

}  // namespace serrate
