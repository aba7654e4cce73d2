#pragma once

#include "serrate/kernels/linear.h"

namespace serrate {

/// The arguments' checks, for ops that multiply within other work.
void check_linear_forward(const LinearForward& args, Device device);
void check_linear_backward(const LinearBackward& args, Device device);

}  // namespace serrate
