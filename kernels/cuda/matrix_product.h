#pragma once

#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

enum class Operand { kAsIs, kTransposed };

/// result = a b + bias, or += a b, row-major.
struct MatrixProduct {
  DeviceMatrix<const float> a;
  Operand a_is = Operand::kAsIs;
  DeviceMatrix<const float> b;
  Operand b_is = Operand::kAsIs;
  DeviceSpan<const float> bias = {};  ///< an entry per column of the result, or empty
  DeviceMatrix<float> result;
  enum class Write { kOverwrite, kAccumulate } write = Write::kOverwrite;
};

/// By cuBLASLt, in fp32; the same bits whenever shapes, strides and alignment are the same.
void multiply(const MatrixProduct& product, const Stream& stream);

}  // namespace serrate
