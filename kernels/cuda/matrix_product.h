#pragma once

#include <cstdint>

#include "serrate/bfloat16.h"
#include "serrate/device_span.h"
#include "serrate/kernels/linear.h"
#include "serrate/stream.h"

namespace serrate {

/// A matrix that a product reads.
struct Factor {
  enum class Type { kFloat, kBFloat16 };

  const void* data;
  std::int64_t rows, cols, stride;
  Type type;

  Factor(const DeviceMatrix<const float>& m)  // NOLINT: implicit
      : data(m.device_data()), rows(m.rows), cols(m.cols), stride(m.stride), type(Type::kFloat) {}
  Factor(const DeviceMatrix<const BFloat16>& m)  // NOLINT: implicit
      : data(m.device_data()),
        rows(m.rows),
        cols(m.cols),
        stride(m.stride),
        type(Type::kBFloat16) {}
};

enum class Operand { kAsIs, kTransposed };

/// result = a b + bias, or += a b, row-major; a and b are of one type.
struct MatrixProduct {
  Factor a;
  Operand a_is = Operand::kAsIs;
  Factor b;
  Operand b_is = Operand::kAsIs;
  DeviceSpan<const float> bias = {};  ///< an entry per column of the result, or empty
  DeviceMatrix<float> result;
  enum class Write { kOverwrite, kAccumulate } write = Write::kOverwrite;
  enum class Round { kNothing, kToTf32 } round = Round::kNothing;  ///< of floats
};

/// By cuBLASLt, with sums in fp32; the same bits whenever shapes, strides and alignment are the
/// same.
void multiply(const MatrixProduct& product, const Stream& stream);

}  // namespace serrate
