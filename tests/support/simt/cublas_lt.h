#pragma once

// What cuBLASLt's descriptors hold on the simulated device.
#include <cublasLt.h>

#include <cstdint>

struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t pointer_mode = 0, trans_a = 0, trans_b = 0;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
  std::int64_t bias_stride = 0;
  void* aux = nullptr;
  std::int64_t aux_ld = 0, aux_stride = 0;
  std::int32_t aux_type = -1, bias_type = -1;
};
struct cublasLtMatrixLayoutOpaque_t {
  std::int32_t type;
  std::uint64_t rows, cols;
  std::int64_t ld;
  std::int32_t order = CUBLASLT_ORDER_COL, batch = 1;
  std::int64_t stride = 0;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint32_t search_mode = 0, reduction_mask = ~0u;
  std::uint64_t workspace = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  // A, B, C, D
};

namespace simt {

/// False, after a finding, when there is no such descriptor.
bool is_descriptor(const void* descriptor, const char* call);

}  // namespace simt
