#include <algorithm>

#include "src/core/gpus.h"
#include "tests/support/devices.h"

namespace serrate {

// The last: where there are several, it is not the current one, which work may not rely on.
std::vector<Device> test_devices() {
  const auto count = static_cast<int>(find_gpus().addresses.size());
  return {Device::cuda(std::max(count - 1, 0))};
}

}  // namespace serrate
