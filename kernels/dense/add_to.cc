#include "serrate/kernels/add_to.h"

#include "kernels/cpu_only.h"

namespace serrate {

void add_to(DeviceSpan<const float> values, DeviceSpan<float> sum, const Stream& stream) {
  check(values.size() == sum.size(), "values and sum must have the same size");
  dispatch_cpu_only(stream.device(), "add_to",
                    [&](auto device) { add_to_on<device()>(values, sum, stream); });
}

}  // namespace serrate
