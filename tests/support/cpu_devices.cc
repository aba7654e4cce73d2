#include "tests/support/devices.h"

namespace serrate {

std::vector<Device> test_devices() {
  return {Device::cpu()};
}

}  // namespace serrate
