#pragma once

#include <cstdint>

#include "serrate/matrix_view.h"

namespace serrate {

/// A factor of a matrix product, as stored or transposed.
struct Factor {
  MatrixView<const float> matrix;
  bool is_transposed = false;
};
template <typename T>
Factor plain(MatrixView<T> matrix) {
  return {matrix, false};
}
template <typename T>
Factor transposed(MatrixView<T> matrix) {
  return {matrix, true};
}

/// c = alpha a b + beta c by CBLAS, on the calling thread alone. Sizes and strides fit an int.
void gemm(float alpha, const Factor& a, const Factor& b, float beta, MatrixView<float> c);

/// Maps what `threads` threads need to multiply at once. OpenBLAS does so at each one's first
/// product, 128 MiB of addresses, and tries for ever where it cannot have them. False when there
/// are too few.
bool reserve_blas_memory(std::int64_t threads);

}  // namespace serrate
