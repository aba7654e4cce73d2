#include "kernels/blas.h"

#include <cblas.h>

// Of OpenBLAS alone; null with another library.
extern "C" void openblas_set_num_threads(int) __attribute__((weak));

namespace serrate {
namespace {

CBLAS_TRANSPOSE transpose(const Factor& factor) {
  return factor.is_transposed ? CblasTrans : CblasNoTrans;
}

// Kernels split their work over the stream's threads themselves: a library that splits a product
// on its own oversubscribes the cores of a rank and makes sums depend on the number of threads.
bool use_one_thread() {
  if (openblas_set_num_threads) openblas_set_num_threads(1);
  return true;
}

}  // namespace

void gemm(float alpha, const Factor& a, const Factor& b, float beta, MatrixView<float> c) {
  [[maybe_unused]] static const bool is_pinned = use_one_thread();
  if (c.rows == 0 || c.cols == 0) return;
  const std::int64_t inner = a.is_transposed ? a.matrix.rows : a.matrix.cols;
  cblas_sgemm(CblasRowMajor, transpose(a), transpose(b), static_cast<int>(c.rows),
              static_cast<int>(c.cols), static_cast<int>(inner), alpha, a.matrix.data,
              static_cast<int>(a.matrix.stride), b.matrix.data, static_cast<int>(b.matrix.stride),
              beta, c.data, static_cast<int>(c.stride));
}

}  // namespace serrate
