#include "kernels/cpu_only.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "tests/support/test_streams.h"

namespace serrate {
namespace {

TEST(CpuOnlyOps, AreListedInOrderAndOnce) {
  EXPECT_EQ(std::ranges::adjacent_find(kCpuOnlyOps, std::ranges::greater_equal()),
            kCpuOnlyOps.end());
  std::cout << kCpuOnlyOps.size() << " ops have no CUDA twin:";
  for (const std::string_view op : kCpuOnlyOps) std::cout << ' ' << op;
  std::cout << '\n';
}

TEST(CpuOnlyOps, SayOnAnyOtherDeviceThatTheyHaveNoTwin) {
  int calls = 0;
  const auto count = [&](auto) { ++calls; };
  dispatch_cpu_only(Device::cpu(), "BitMask", count);
  EXPECT_EQ(calls, 1);
  try {
    dispatch_cpu_only(Device::cuda(1), "BitMask", count);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "op BitMask has no cuda:1 backend in this version; use a cpu stream");
  }
  EXPECT_EQ(calls, 1);
}

TEST(CpuOnlyOps, RunInTestsOfTheCpuAlone) {
  for (const Device device : devices_with({"embedding_lookup", "BitMask"})) {
    EXPECT_EQ(device, Device::cpu());
  }
  EXPECT_EQ(devices_with({"embedding_lookup"}), test_devices());
}

}  // namespace
}  // namespace serrate
