#pragma once

// What cuBLAS and cuBLASLt share on the simulated device: handles, and a product of matrices with
// its epilogue as an operation in a stream.
#include <cublasLt.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "tests/support/simt/library.h"

namespace simt {

struct RuntimeLock {
  std::lock_guard<std::recursive_mutex> guard{runtime_mutex()};
};

/// A finding about a call, and the status that it returns.
cublasStatus_t refuse(cublasStatus_t status, const std::string& text);

struct Handle {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
  cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math_mode = CUBLAS_DEFAULT_MATH;
};

std::uintptr_t make_handle(const char* what);
/// Null, after a finding, when there is no such handle.
Handle* handle_of(const void* handle, const char* call);
cublasStatus_t destroy_handle(const void* handle, const char* call);

/// Bytes of an element; 0 where the type is not simulated.
std::size_t size_of(int type);

/// A matrix in memory: `vectors` of `length` neighbours (columns, or rows of a row-major one).
struct Matrix {
  const char* name = "";
  std::uint8_t* data = nullptr;
  int type = CUDA_R_32F;
  std::int64_t rows = 0, cols = 0, ld = 0, stride = 0;
  bool row_major = false;

  std::int64_t length() const { return row_major ? cols : rows; }
  std::int64_t vectors() const { return row_major ? rows : cols; }
  std::size_t bytes() const {  // from the first to the last element
    if (length() == 0 || vectors() == 0) return 0;
    return static_cast<std::size_t>((vectors() - 1) * ld + length()) * size_of(type);
  }
  std::uint8_t* at(std::int64_t batch, std::int64_t row, std::int64_t col) const {
    const std::int64_t place = row_major ? row * ld + col : col * ld + row;
    return data + static_cast<std::size_t>(batch * stride + place) * size_of(type);
  }
};

struct Product {
  std::string call;
  Matrix a, b, c, d;
  bool trans_a = false, trans_b = false, truncate = false;
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  bool scalars_on_device = false;
  const void *alpha_at = nullptr, *beta_at = nullptr;
  float alpha = 0, beta = 0;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  std::uint8_t *bias = nullptr, *aux = nullptr;
  std::int64_t bias_stride = 0, aux_ld = 0, aux_stride = 0;
  void* workspace = nullptr;
  std::size_t workspace_bytes = 0;
};

// The bits of cublasLtEpilogue_t.
constexpr std::uint32_t kRelu = 2, kBias = 4, kDRelu = 8, kBiasGradient = 16, kGelu = 32,
                        kDGelu = 64, kAux = 128, kGradientA = 256, kGradientB = 512;
bool aux_is_bits(std::uint32_t epilogue);

inline std::uint8_t* bytes_of(const void* data) {
  return static_cast<std::uint8_t*>(const_cast<void*>(data));
}

bool types_are_supported(int a, int b, int d, cublasComputeType_t compute);
/// alpha and beta of the host are read at the call, the device's in stream order. What is wrong
/// with them, or empty.
std::string take_scalars(Product& p, const void* alpha, const void* beta, bool on_device);
/// What is wrong with the matrices' addresses and strides, or empty.
std::string check_memory(const Product& p);
cublasStatus_t queue(Product p, cudaStream_t stream);

}  // namespace simt
