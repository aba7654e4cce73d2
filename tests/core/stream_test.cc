#include "serrate/stream.h"

#include <gtest/gtest.h>

#include "serrate/buffer.h"
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

// A handle that says when it goes.
struct Handle {
  explicit Handle(const Stream& stream) : native(stream.native()) {}
  ~Handle() {
    if (destroyed) ++*destroyed;
  }
  void* native;
  int* destroyed = nullptr;
};
struct OtherHandle {
  explicit OtherHandle(const Stream&) {}
};

TEST_P(StreamTest, OwnsWhatIsAttached) {
  int destroyed = 0;
  {
    Stream stream(GetParam());
    Handle& handle = stream.attached<Handle>();
    EXPECT_EQ(handle.native, stream.native());
    handle.destroyed = &destroyed;
    stream.attached<OtherHandle>();
    EXPECT_EQ(&stream.attached<Handle>(), &handle);
    const Stream moved(std::move(stream));
    EXPECT_EQ(&moved.attached<Handle>(), &handle);
    EXPECT_EQ(destroyed, 0);
  }
  EXPECT_EQ(destroyed, 1);
}

TEST_P(StreamTest, WrapsTheQueueOfACaller) {
  if (GetParam() == Device::cpu()) {
    EXPECT_THROW(Stream::wrap(nullptr, Device::cpu()), Error);
    return;
  }
  const Stream owner(GetParam());
  {
    const Stream wrapped = Stream::wrap(owner.native(), GetParam());
    EXPECT_EQ(wrapped.device(), GetParam());
    EXPECT_EQ(wrapped.native(), owner.native());
    EXPECT_EQ(Buffer<int>::zeros(3, wrapped).to_host(wrapped), std::vector<int>(3));
  }
  owner.synchronize();  // is still there
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
