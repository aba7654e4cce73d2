#pragma once

#include "serrate/kernels/activation.h"

namespace serrate {

/// activation_backward(), and sums[c] += the sum of column c of d_x, before it is rounded: the
/// gradient of a bias. Without sums the gradient alone.
void activation_backward_and_sum(Activation f, const InputMatrix& x, const InputMatrix& d_y,
                                 const OutputMatrix& d_x, DeviceSpan<float> sums,
                                 const Stream& stream);

}  // namespace serrate
