#include "serrate/stream.h"

#include <gtest/gtest.h>

#include "serrate/error.h"
#include "tests/support/devices.h"

namespace serrate {
namespace {

class StreamTest : public testing::TestWithParam<Device> {};

TEST_P(StreamTest, KnowsItsDeviceAndThreads) {
  const Stream stream(GetParam(), 3);
  EXPECT_EQ(stream.device(), GetParam());
  EXPECT_EQ(stream.num_threads(), 3);
  EXPECT_EQ(stream.native() == nullptr, GetParam() == Device::cpu());
  stream.synchronize();
}

TEST_P(StreamTest, MovingHandsTheQueueOver) {
  Stream first(GetParam(), 2);
  void* native = first.native();
  Stream second(std::move(first));
  EXPECT_EQ(second.native(), native);
  Stream third(GetParam());
  third = std::move(second);
  EXPECT_EQ(third.native(), native);
  EXPECT_EQ(third.num_threads(), 2);
  third.synchronize();
}

TEST_P(StreamTest, NeedsAThread) {
  EXPECT_THROW(Stream(GetParam(), 0), Error);
}

TEST(DeviceTest, HasAName) {
  EXPECT_EQ(to_string(Device::cpu()), "cpu");
  EXPECT_EQ(to_string(Device::cuda(3)), "cuda:3");
}

INSTANTIATE_TEST_SUITE_P(Device, StreamTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
