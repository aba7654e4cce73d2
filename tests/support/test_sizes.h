#pragma once

#include "tests/support/devices.h"

namespace serrate {

/// Whether this binary's suites run on devices, perhaps simulated ones: sizes are smaller then.
inline bool tests_run_on_devices() {
  return test_devices().front().type != DeviceType::kCpu;
}

/// So many threads at most, up to which bits are compared. Where threads mean nothing, 2 is another
/// run.
inline int most_threads() {
  return tests_run_on_devices() ? 2 : 3;
}

}  // namespace serrate
