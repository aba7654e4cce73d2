// Under mpirun every rank trains the workload with its peers, and again with threads as its peers:
// the same bits.

#include <gtest/gtest.h>

#include "serrate/mpi_communicator.h"
#include "tests/embedding/workload.h"

namespace serrate {
namespace {

TEST(MpiEquivalence, ThreadsAndMpirunAgreeBitForBit) {
  const auto communicator = make_mpi_communicator(std::chrono::seconds(30));
  for (const auto optimizer : {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                               SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
    Workload workload{.tables = workload_tables(), .optimizer = {.type = optimizer}};
    const int size = communicator->size();
    for (const ShardingPlan& plan :
         {mixed_plan(workload, size),
          mixed_node_plan(workload, size, size % 2 == 0 ? size / 2 : 1)}) {
      for (const SplitBags split_bags : {SplitBags::kPartialSums, SplitBags::kIdOrder}) {
        workload.split_bags = split_bags;
        const RankResult result = train_rank(workload, plan, *communicator, Stream());
        EXPECT_EQ(result, train_thread_ranks(workload, plan)[communicator->rank()])
            << to_string(optimizer);
      }
    }
  }
}

}  // namespace
}  // namespace serrate
