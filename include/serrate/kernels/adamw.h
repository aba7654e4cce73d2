#pragma once

#include <cstdint>

#include "serrate/bfloat16.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

struct AdamWOptions {
  float learning_rate = 1e-3f;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0.01f;  ///< decoupled (Loshchilov & Hutter 2019)
};

/// One step over flat parameters; `decay` [n] is 1 where weight decay applies and 0 elsewhere.
/// `step` counts from 1.
struct AdamW {
  DeviceSpan<float> parameters, first_moment, second_moment;
  DeviceSpan<const float> gradients;
  DeviceSpan<const float> decay;
  AdamWOptions options;
  std::int64_t step = 1;
  DeviceSpan<BFloat16> rounded = {};  ///< becomes the new parameters, to nearest; or empty
};

void adamw_update(const AdamW& args, const Stream& stream);

template <DeviceType D>
void adamw_update_on(const AdamW&, const Stream&);

}  // namespace serrate
