// NCCL between processes that share one GPU. On the simulated device, as on a real one.
#include <gtest/gtest.h>

#include "serrate/mpi_communicator.h"
#include "serrate/nccl_communicator.h"
#include "tests/comm/conformance.h"

namespace serrate {
namespace {

const Device kGpu = Device::cuda(0);

INSTANTIATE_TEST_SUITE_P(Nccl, CommunicatorConformance,
                         testing::Values(Ranks{"mpirun", mpirun_size(), kGpu,
                                               [](auto deadline, const auto& body) {
                                                 const auto nccl = make_nccl_communicator(
                                                     make_mpi_communicator(
                                                         std::chrono::seconds(30)),
                                                     kGpu, {.sharing = GpuSharing::kAllowed});
                                                 nccl->set_deadline(deadline);
                                                 body(*nccl);
                                               }}),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace serrate
