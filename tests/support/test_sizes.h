#pragma once

#include "tests/support/devices.h"

namespace serrate {

/// Whether this binary's suites run on devices, perhaps simulated ones: sizes are smaller then.
inline bool tests_run_on_devices() {
  return test_devices().front().type != DeviceType::kCpu;
}

}  // namespace serrate
