#include "serrate/kernels/round_to_bfloat16.h"

#include "src/core/dispatch.h"

namespace serrate {

void round_to_bfloat16(DeviceSpan<const float> values, DeviceSpan<BFloat16> rounded,
                       const Stream& stream) {
  check(values.size() == rounded.size(),
        "round_to_bfloat16: there must be as many rounded values as values");
  dispatch_device(stream.device(),
                  [&](auto d) { round_to_bfloat16_on<d()>(values, rounded, stream); });
}

}  // namespace serrate
