// Under mpirun every rank trains the workload with its peers, and again with threads as its peers:
// the same bits.

#include <gtest/gtest.h>

#include "serrate/mpi_communicator.h"
#include "tests/embedding/equivalence.h"

namespace serrate {
namespace {

TEST(MpiEquivalence, ThreadsAndMpirunAgreeBitForBit) {
  const auto communicator = make_mpi_communicator(std::chrono::seconds(30));
  for (const auto optimizer : {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                               SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
    expect_bits_of_threads({.tables = workload_tables(), .optimizer = {.type = optimizer}},
                           *communicator, Device::cpu());
  }
}

}  // namespace
}  // namespace serrate
