#pragma once

#include "serrate/kernels/linear.h"

namespace serrate {

/// What the sides of a weight have to be multiples of here: whole vectors on any target.
inline constexpr std::int64_t kWholeSide = 16;

/// linear_forward and linear_backward on the CPU. Every element is one sum in the order of columns
/// or rows: its bits depend neither on threads nor on the rest of the batch.
void whole_linear_forward(const LinearForward& args, const Stream& stream);
void whole_linear_backward(const LinearBackward& args, const Stream& stream);

}  // namespace serrate
