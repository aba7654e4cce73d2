#include "serrate/buffer.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <string_view>

#include "tests/support/devices.h"

namespace serrate {
namespace {

using Floats = std::vector<float>;

class BufferTest : public testing::TestWithParam<Device> {
 protected:
  const Stream stream{GetParam()};
};

TEST_P(BufferTest, EmptyOwnsNothing) {
  const Buffer<float> made_empty(0, stream), default_made;
  EXPECT_EQ(made_empty.size(), 0);
  EXPECT_EQ(made_empty.bytes(), 0);
  EXPECT_TRUE(made_empty.span().empty());
  EXPECT_EQ(default_made.to_host(stream), Floats{});
}

TEST_P(BufferTest, HoldsACopyOfHostValues) {
  Floats host(1000);
  std::iota(host.begin(), host.end(), 0.0f);
  const Buffer<float> buffer(host, stream);
  EXPECT_EQ(buffer.size(), 1000);
  EXPECT_EQ(buffer.device(), GetParam());
  EXPECT_EQ(buffer.to_host(stream), host);
}

TEST_P(BufferTest, ZerosAreZero) {
  EXPECT_EQ(Buffer<float>::zeros(5000, stream).to_host(stream), Floats(5000, 0));
}

TEST_P(BufferTest, LargeBlocksStartOnAHugePage) {
  constexpr std::int64_t kHugePage = 2 << 20;
  if (GetParam() == Device::cpu()) {
    const Buffer<std::uint8_t> large(3 * kHugePage + 1, stream);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(large.device_data()) % kHugePage, 0);
  }
  const Buffer<std::uint8_t> small(1, stream);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(small.device_data()) % 64, 0);
}

TEST_P(BufferTest, MovingHandsTheMemoryOver) {
  Buffer<float> first(Floats{1, 2}, stream);
  const float* data = first.device_data();
  Buffer<float> second(std::move(first));
  EXPECT_EQ(second.device_data(), data);
  Buffer<float> third(Floats{7}, stream);
  third = std::move(second);
  EXPECT_EQ(third.device_data(), data);
  EXPECT_EQ(third.size(), 2);
  EXPECT_EQ(third.to_host(stream), (Floats{1, 2}));
}

TEST_P(BufferTest, ResizeKeepsMemoryThatIsLargeEnough) {
  Buffer<float> buffer;
  buffer.resize_discard(100, stream);
  EXPECT_EQ(buffer.capacity(), 125);
  EXPECT_EQ(buffer.bytes(), 500);
  const float* data = buffer.device_data();
  EXPECT_EQ(buffer.resize_discard(3, stream).size(), 3u);
  EXPECT_EQ(std::ssize(buffer.resize_discard(125, stream)), 125);
  EXPECT_EQ(buffer.device_data(), data);
  buffer.resize_discard(126, stream);
  EXPECT_GE(buffer.capacity(), 126);
}

TEST_P(BufferTest, CopiesAndClearsSpans) {
  Buffer<float> from(Floats{1, 2, 3, 4}, stream), to(Floats{0, 0, 0, 0}, stream);
  serrate::copy(from.span().subspan(1, 2), to.span().subspan(2, 2), stream);
  EXPECT_EQ(to.to_host(stream), (Floats{0, 0, 2, 3}));
  fill_zero(to.span().last(1), stream);
  EXPECT_EQ(to.to_host(stream), (Floats{0, 0, 2, 0}));
  EXPECT_THROW(serrate::copy(from.span(), to.span().first(3), stream), Error);
}

TEST_P(BufferTest, MemoryThatAGpuLacksIsAnErrorThatSaysHowMuch) {
  if (stream.device().type == DeviceType::kCpu) GTEST_SKIP() << "std::bad_alloc";
  constexpr std::int64_t kPebibyte = std::int64_t{1} << 50;
  try {
    const Buffer<std::byte> buffer(kPebibyte, stream);
    FAIL() << "a pebibyte was allocated";
  } catch (const Error& error) {
    const std::string_view what = error.what();
    const std::string start = "cuda:" + std::to_string(stream.device().index) +
                              ": 1125899906842624 bytes of device memory cannot be allocated (";
    EXPECT_TRUE(what.starts_with(start)) << what;
    EXPECT_NE(what.find(" are free): use smaller batches"), what.npos) << what;
  }
  Buffer<float> next(Floats{1, 2}, stream);  // the error does not last
  EXPECT_EQ(next.to_host(stream), (Floats{1, 2}));
}

INSTANTIATE_TEST_SUITE_P(Device, BufferTest, testing::ValuesIn(test_devices()), device_name);

}  // namespace
}  // namespace serrate
