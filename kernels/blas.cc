#include "kernels/blas.h"

#include <cblas.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

// Of OpenBLAS alone; null with another library.
extern "C" void openblas_set_num_threads(int) __attribute__((weak));
extern "C" void* blas_memory_alloc(int) __attribute__((weak));
extern "C" void blas_memory_free(void*) __attribute__((weak));

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

constexpr std::size_t kBlasBytes = 129 << 20;  // with what malloc adds
constexpr std::int64_t kMostBuffers = 50;      // of OpenBLAS; it warns of more

/// Whether `count` times as many bytes can be mapped, which are given back.
bool can_map(std::int64_t count, std::size_t bytes) {
  std::vector<void*> maps;
  while (std::ssize(maps) < count) {
    void* map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) break;
    maps.push_back(map);
  }
  for (void* map : maps) munmap(map, bytes);
  return std::ssize(maps) == count;
}

}  // namespace

bool reserve_blas_memory(std::int64_t threads) {
  if (!blas_memory_alloc || !blas_memory_free) return true;
  if (!can_map(threads, kBlasBytes)) return false;
  std::vector<void*> buffers(std::min(threads, kMostBuffers));
  for (void*& buffer : buffers) buffer = blas_memory_alloc(0);
  for (void* buffer : buffers) blas_memory_free(buffer);  // stays mapped, for products to take
  return true;
}

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
