#pragma once

#include "serrate/kernels/linear.h"

namespace serrate {

/// Whether the weight stays in the L2 cache and its sides are whole vectors. Then a BLAS spends
/// much of its time on packing x and y; products that pack the weight alone need less of it.
inline bool is_narrow(const MatrixView<const float>& weight) {
  return weight.rows % 16 == 0 && weight.cols % 16 == 0 && weight.rows * weight.cols <= 64 * 1024;
}

/// linear_forward and linear_backward on the CPU for narrow weights. Every element is one sum in
/// the order of columns or rows: its bits depend neither on threads nor on the rest of the batch.
void narrow_linear_forward(const LinearForward& args, const Stream& stream);
void narrow_linear_backward(const LinearBackward& args, const Stream& stream);

}  // namespace serrate
