// Between processes, whose rows of a GPU the host moves.
#include <gtest/gtest.h>

#include "serrate/mpi_communicator.h"
#include "tests/simt/step_overlap.h"

namespace serrate {
namespace {

TEST(DenseAllReduceMpi, IsBesideTheUpdateOfTheEmbeddings) {
  const auto communicator = make_mpi_communicator(std::chrono::seconds(60));
  expect_overlap(ShardingType::kRowWise, "output_dist_backward", true, *communicator);
}

}  // namespace
}  // namespace serrate
