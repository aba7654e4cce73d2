#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "serrate/stream.h"

namespace serrate {

/// The devices that the TEST_P suites of this binary run on: the suites are linked once with
/// cpu_devices.cc and, in a CUDA build, once more with cuda_devices.cc into a test labelled gpu.
std::vector<Device> test_devices();

/// "cpu" or "cuda", for the names of test instances.
inline std::string device_name(const testing::TestParamInfo<Device>& info) {
  return info.param == Device::cpu() ? "cpu" : "cuda";
}

}  // namespace serrate
