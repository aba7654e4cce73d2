#pragma once

#include <gtest/gtest.h>

#include <list>
#include <tuple>

#include "serrate/stream.h"
#include "tests/support/devices.h"

namespace serrate {

/// The streams of a test on one device.
class TestStreams {
 public:
  explicit TestStreams(Device device) : stream(device) {}

  /// What the test's memory is on.
  const Stream stream;
  /// The same device with so many threads: on the CPU a stream of its own, whose work is done when
  /// a call returns; elsewhere threads mean nothing, and it is `stream`.
  const Stream& threads(int num_threads) {
    if (stream.device().type != DeviceType::kCpu) return stream;
    return with_threads_.emplace_back(Device::cpu(), num_threads);
  }

 private:
  std::list<Stream> with_threads_;
};

/// A suite over devices.
class KernelTest : public testing::TestWithParam<Device>, public TestStreams {
 protected:
  KernelTest() : TestStreams(GetParam()) {}
};

/// A suite over devices and something else, of testing::Combine(ValuesIn(test_devices()), ...).
template <typename T>
class KernelTestOver : public testing::TestWithParam<std::tuple<Device, T>>, public TestStreams {
 protected:
  KernelTestOver() : TestStreams(std::get<0>(this->GetParam())) {}
  const T& param() const { return std::get<1>(this->GetParam()); }
};

}  // namespace serrate
