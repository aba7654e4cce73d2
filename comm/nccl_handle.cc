#include "comm/nccl_handle.h"

#include <fmt/format.h>

#include <utility>

#include "comm/idle.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

constexpr std::chrono::seconds kAbortPatience(5);

}  // namespace

NcclHandle::~NcclHandle() {
  abort();
}

ncclResult_t NcclHandle::start(const ncclUniqueId& id, int rank, int size, Device device,
                               Clock::time_point deadline) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = dispatch_device(device, [&](auto) {
    const std::lock_guard lock(mutex_);
    return ncclCommInitRankConfig(&comm_, size, id, rank, &config);
  });
  return result == ncclInProgress ? wait(deadline) : result;
}

ncclResult_t NcclHandle::group(const std::function<ncclResult_t(ncclComm_t)>& calls,
                               Clock::time_point deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (!comm_) return ncclInvalidUsage;
    ncclResult_t result = ncclGroupStart();
    if (result == ncclSuccess) {
      result = calls(comm_);
      const ncclResult_t ended = ncclGroupEnd();  // also after a call that failed
      if (result == ncclSuccess) result = ended;
    }
    if (result != ncclInProgress) return result;
  }
  return wait(deadline);
}

ncclResult_t NcclHandle::finish(Clock::time_point deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (!comm_) return ncclInvalidUsage;
    const ncclResult_t result = ncclCommFinalize(comm_);
    if (result != ncclSuccess && result != ncclInProgress) return result;
  }
  const ncclResult_t result = wait(deadline);
  const std::lock_guard lock(mutex_);
  if (result != ncclSuccess || !comm_) return result;
  return ncclCommDestroy(std::exchange(comm_, nullptr));
}

ncclResult_t NcclHandle::wait(Clock::time_point deadline) {
  const Clock::time_point start = Clock::now();
  for (Clock::time_point now = start; now < deadline; now = Clock::now()) {
    const ncclResult_t result = async_error();
    if (result != ncclInProgress) return result;
    idle(now - start);
  }
  return ncclInProgress;
}

ncclResult_t NcclHandle::async_error() {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return ncclInProgress;
  if (!comm_) return ncclInvalidUsage;
  ncclResult_t error = ncclSuccess;
  const ncclResult_t result = ncclCommGetAsyncError(comm_, &error);
  return result == ncclSuccess ? error : result;
}

void NcclHandle::abort() noexcept {
  const std::unique_lock lock(mutex_, kAbortPatience);
  if (lock && comm_) ncclCommAbort(std::exchange(comm_, nullptr));
}

std::string nccl_message(ncclResult_t result) {
  const std::string_view more = ncclGetLastError(nullptr);
  return fmt::format("NCCL: {}{}{}", ncclGetErrorString(result), more.empty() ? "" : ": ", more);
}

}  // namespace serrate
