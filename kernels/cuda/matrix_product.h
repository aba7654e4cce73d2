#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "serrate/any_matrix.h"
#include "serrate/kernels/activation.h"
#include "serrate/kernels/linear.h"
#include "serrate/stream.h"

namespace serrate {

enum class Operand { kAsIs, kTransposed };

/// relu or gelu_tanh within a product: result = f(a b + bias), which leaves in `kept` what its
/// gradient needs, or result = (a b) f'(.), with what that product kept.
struct ProductActivation {
  enum class Pass { kForward, kBackward };
  Activation f;
  Pass pass;
  DeviceSpan<std::byte> kept;
};

/// Whether products have this activation, of rows so long: cuBLASLt wants multiples of 8.
bool products_apply(Activation f, std::int64_t cols);
/// Bytes of what is kept: a bit for each element with relu, as many for a row as fill whole 16
/// bytes; else f's arguments, of the result's type.
std::int64_t product_kept_bytes(Activation f, std::int64_t rows, std::int64_t cols, DataType type);

/// result = a b + bias, or += a b, row-major. a and b are of one type; the result has it too, or is
/// float32; the bias has that of the result. bf16 is what types say.
struct MatrixProduct {
  InputMatrix a;
  Operand a_is = Operand::kAsIs;
  InputMatrix b;
  Operand b_is = Operand::kAsIs;
  InputMatrix bias = {};  ///< an entry per column of the result, or no columns
  OutputMatrix result;
  enum class Write { kOverwrite, kAccumulate } write = Write::kOverwrite;
  Precision precision = Precision::kFp32;
  std::optional<ProductActivation> activation = {};
};

/// By cuBLASLt, with sums in fp32; the same bits whenever shapes, strides and alignment are the
/// same. A bias of bfloat16 is aligned to 16 bytes: a preference says how matrices are aligned, but
/// not the bias, of which some of cuBLASLt's kernels load 16 bytes at once.
void multiply(const MatrixProduct& product, const Stream& stream);

}  // namespace serrate
