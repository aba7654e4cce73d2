#include "serrate/kernels/add_to.h"

#include "src/core/ordered_sum.h"

namespace serrate {

void add_to(DeviceSpan<const float> values, DeviceSpan<float> sum, const Stream& stream) {
  check(values.size() == sum.size(), "values and sum must have the same size");
  const Addition<float> addition{sum.device_data(), values.device_data()};
  add_in_order<float>({&addition, 1}, static_cast<std::int64_t>(sum.size()), stream);
}

}  // namespace serrate
