// Devices of ranks in a build without CUDA.
#include <gtest/gtest.h>

#include "serrate/rank_device.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

TEST(ChooseDevice, AutoIsTheCpuWithoutCuda) {
  run_ranks(3, [](Communicator& communicator) {
    EXPECT_EQ(choose_device({DeviceChoice::Kind::kAuto}, communicator), Device::cpu());
    EXPECT_EQ(choose_device({DeviceChoice::Kind::kCpu}, communicator), Device::cpu());
  });
}

TEST(ChooseDevice, CudaIsRefusedWithoutCuda) {
  try {
    run_ranks(2, [](Communicator& communicator) {
      choose_device({DeviceChoice::Kind::kCuda, 1}, communicator);
    });
    ADD_FAILURE() << "there is a GPU";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_EQ(
        std::string(error.what())
            .find("rank 0: there is no GPU for the device cuda:1 (this build is without CUDA)"),
        0)
        << error.what();
  }
}

}  // namespace
}  // namespace serrate
