#include <utility>

#include "serrate/nccl_communicator.h"
#include "src/core/say.h"
#if SERRATE_WITH_NCCL
#include "comm/nccl_communicator.h"
#endif

namespace serrate {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     Device device,
                                                     [[maybe_unused]] NcclOptions options) {
  check(device.type == DeviceType::kCuda, "NCCL is for GPUs");
  if (host->size() == 1) return host;
#if SERRATE_WITH_NCCL
  return NcclCommunicator::make(std::move(host), device, std::move(options));
#else
  if (host->rank() == 0) {
    say("this build is without NCCL: rows go from GPU to GPU by way of host memory");
  }
  return host;
#endif
}

}  // namespace serrate
