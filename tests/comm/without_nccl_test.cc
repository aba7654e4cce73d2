// A build without NCCL, for which make_nccl_communicator.cc is compiled into this program once
// more.
#include <gtest/gtest.h>

#include "serrate/mpi_communicator.h"
#include "serrate/nccl_communicator.h"
#include "tests/comm/conformance.h"
#include "tests/support/devices.h"

namespace serrate {
namespace {

TEST(WithoutNccl, RowsGoByWayOfTheHostAndRankZeroSaysSo) {
  const Device gpu = test_devices().front();
  testing::internal::CaptureStderr();
  const auto communicator =
      make_nccl_communicator(make_mpi_communicator(std::chrono::seconds(60)), gpu, {});
  const std::string said = testing::internal::GetCapturedStderr();
  const bool says = communicator->size() > 1 && communicator->rank() == 0;
  EXPECT_EQ(said, says ? "serrate: this build is without NCCL: rows go from GPU to GPU by way of "
                         "host memory\n"
                       : "");
  check_random_exchanges(*communicator, 3, Stream(gpu));
}

}  // namespace
}  // namespace serrate
