#pragma once

#include <cstdint>

#include "serrate/any_matrix.h"
#include "serrate/stream.h"

namespace serrate {

enum class Operand { kAsIs, kTransposed };

/// result = a b + bias, or += a b, row-major. a and b are of one type; the result has it too, or is
/// float32; the bias has that of the result.
struct MatrixProduct {
  InputMatrix a;
  Operand a_is = Operand::kAsIs;
  InputMatrix b;
  Operand b_is = Operand::kAsIs;
  InputMatrix bias = {};  ///< an entry per column of the result, or no columns
  OutputMatrix result;
  enum class Write { kOverwrite, kAccumulate } write = Write::kOverwrite;
  enum class Round { kNothing, kToTf32 } round = Round::kNothing;  ///< of floats
};

/// By cuBLASLt, with sums in fp32; the same bits whenever shapes, strides and alignment are the
/// same. A bias of bfloat16 is aligned to 16 bytes: a preference says how matrices are aligned, but
/// not the bias, of which some of cuBLASLt's kernels load 16 bytes at once.
void multiply(const MatrixProduct& product, const Stream& stream);

}  // namespace serrate
