#include "serrate/event.h"

#include <gtest/gtest.h>

#include <numeric>

#include "serrate/buffer.h"
#include "serrate/error.h"
#include "serrate/host_buffer.h"
#include "tests/support/devices.h"

namespace serrate {
namespace {

class EventTest : public testing::TestWithParam<Device> {
 protected:
  const Stream first{GetParam()}, second{GetParam()};
};

TEST_P(EventTest, NothingWaitsForWhatWasNotRecorded) {
  const Event event(GetParam());
  EXPECT_TRUE(event.is_reached());
  event.synchronize();
  first.wait_for(event);
  first.synchronize();
}

// On the simulated device streams run as late as they may: without the event the copy of `second`
// would come before that of `first`, and be reported.
TEST_P(EventTest, OrdersTheWorkOfTwoStreams) {
  const std::vector<float> values{1, 2, 3};
  const Buffer<float> from(values, first);
  Buffer<float> to(3, first), again(3, second);
  copy(from.span(), to.span(), first);
  Event written(GetParam());
  written.record(first);
  second.wait_for(written);
  copy(std::as_const(to).span(), again.span(), second);
  EXPECT_EQ(again.to_host(second), values);
  Event read(GetParam());
  read.record(second);
  first.wait_for(read);  // `to` is freed on first
}

TEST_P(EventTest, IsReachedWhenTheHostHasWaited) {
  Buffer<float> values(1000, first);
  fill_zero(values.span(), first);
  Event event(GetParam());
  event.record(first);
  event.synchronize();
  EXPECT_TRUE(event.is_reached());
  event = Event(GetParam());
  EXPECT_TRUE(event.is_reached());
}

TEST_P(EventTest, TakesTheTimeInOrder) {
  Event begin(GetParam(), EventUse::kTime), end(GetParam(), EventUse::kTime);
  begin.record(first);
  end.record(first);
  EXPECT_GE(end.seconds_since(begin), 0);
  EXPECT_LE(begin.seconds_since(end), 0);
  const Event no_time(GetParam());
  EXPECT_THROW(no_time.seconds_since(begin), Error);
}

TEST_P(EventTest, CopiesToAndFromHostBuffersAreQueued) {
  HostBuffer<std::int64_t> from(5, GetParam()), to(7, GetParam());
  std::iota(from.span().begin(), from.span().end(), 10);
  Buffer<std::int64_t> on_device(3, first);
  copy_async(from, 1, on_device.span(), first);
  copy_async(on_device.span(), to, 2, first);
  Event copied(GetParam());
  copied.record(first);
  copied.synchronize();
  EXPECT_EQ(to.span()[2], 11);
  EXPECT_EQ(to.span()[3], 12);
  EXPECT_EQ(to.span()[4], 13);
  EXPECT_THROW(copy_async(from, 3, on_device.span(), first), Error);
  EXPECT_THROW(copy_async(on_device.span(), to, 5, first), Error);
}

TEST_P(EventTest, HostBuffersGrowAndMove) {
  HostBuffer<float> buffer;
  EXPECT_EQ(buffer.resize_discard(100, GetParam()).size(), 100u);
  EXPECT_EQ(buffer.capacity(), 125);
  EXPECT_EQ(buffer.bytes(), 500);
  const float* data = buffer.span().data();
  EXPECT_EQ(buffer.resize_discard(125, GetParam()).data(), data);
  const HostBuffer<float> moved(std::move(buffer));
  EXPECT_EQ(moved.span().data(), data);
  EXPECT_EQ(moved.size(), 125);
  EXPECT_EQ(moved.device(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Device, EventTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
