// As mpi_equivalence_test, on a GPU that the ranks share: rows go through NCCL under mpirun, and
// from thread to thread by copies. Of the optimizers the one that has an exchange of its own.

#include <gtest/gtest.h>

#include "serrate/mpi_communicator.h"
#include "serrate/nccl_communicator.h"
#include "tests/embedding/equivalence.h"

namespace serrate {
namespace {

TEST(NcclEquivalence, ThreadsAndMpirunAgreeBitForBit) {
  const Device gpu = Device::cuda(0);
  const auto communicator = make_nccl_communicator(make_mpi_communicator(std::chrono::seconds(60)),
                                                   gpu, {.sharing = GpuSharing::kAllowed});
  Workload workload{.tables = workload_tables(),
                    .optimizer = {.type = SparseOptimizer::kRowWiseAdagrad}};
  workload.num_steps = 2;
  workload.bags_per_feature = 10;
  expect_bits_of_threads(workload, *communicator, gpu);
}

}  // namespace
}  // namespace serrate
