#pragma once

// The part of cuBLAS for matrix products, on the simulated device (tests/support/simt/cublas.cc).
#include <cuda_runtime_api.h>
#include <library_types.h>

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS = 0,
  CUBLAS_STATUS_NOT_INITIALIZED = 1,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUBLAS_STATUS_INVALID_VALUE = 7,
  CUBLAS_STATUS_ARCH_MISMATCH = 8,
  CUBLAS_STATUS_MAPPING_ERROR = 11,
  CUBLAS_STATUS_EXECUTION_FAILED = 13,
  CUBLAS_STATUS_INTERNAL_ERROR = 14,
  CUBLAS_STATUS_NOT_SUPPORTED = 15,
  CUBLAS_STATUS_LICENSE_ERROR = 16,
};
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1, CUBLAS_OP_C = 2 };
enum cublasPointerMode_t { CUBLAS_POINTER_MODE_HOST = 0, CUBLAS_POINTER_MODE_DEVICE = 1 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1, CUBLAS_GEMM_DEFAULT_TENSOR_OP = 99 };
enum cublasMath_t {
  CUBLAS_DEFAULT_MATH = 0,
  CUBLAS_PEDANTIC_MATH = 2,
  CUBLAS_TF32_TENSOR_OP_MATH = 3,
  CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16,
};
enum cublasComputeType_t {
  CUBLAS_COMPUTE_16F = 64,
  CUBLAS_COMPUTE_32F = 68,
  CUBLAS_COMPUTE_32F_PEDANTIC = 69,
  CUBLAS_COMPUTE_32F_FAST_16F = 74,
  CUBLAS_COMPUTE_32F_FAST_16BF = 75,
  CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
  CUBLAS_COMPUTE_64F = 70,
  CUBLAS_COMPUTE_32I = 72,
};
using cublasHandle_t = struct cublasContext*;

extern "C" {
cublasStatus_t cublasCreate(cublasHandle_t* handle);
cublasStatus_t cublasDestroy(cublasHandle_t handle);
cublasStatus_t cublasGetVersion(cublasHandle_t handle, int* version);
const char* cublasGetStatusName(cublasStatus_t status);
const char* cublasGetStatusString(cublasStatus_t status);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t* stream);
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes);
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode);
cublasStatus_t cublasGetPointerMode(cublasHandle_t handle, cublasPointerMode_t* mode);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode);

// Each in the form with sizes of 64 bits too.
#define SIMT_GEMMS(suffix, Int)                                                                   \
  cublasStatus_t cublasSgemm##suffix(cublasHandle_t handle, cublasOperation_t trans_a,            \
                                     cublasOperation_t trans_b, Int m, Int n, Int k,              \
                                     const float* alpha, const float* a, Int lda, const float* b, \
                                     Int ldb, const float* beta, float* c, Int ldc);              \
  cublasStatus_t cublasGemmEx##suffix(                                                            \
      cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b, Int m, Int n,  \
      Int k, const void* alpha, const void* a, cudaDataType a_type, Int lda, const void* b,       \
      cudaDataType b_type, Int ldb, const void* beta, void* c, cudaDataType c_type, Int ldc,      \
      cublasComputeType_t compute, cublasGemmAlgo_t algo);                                        \
  cublasStatus_t cublasGemmStridedBatchedEx##suffix(                                              \
      cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b, Int m, Int n,  \
      Int k, const void* alpha, const void* a, cudaDataType a_type, Int lda, long long stride_a,  \
      const void* b, cudaDataType b_type, Int ldb, long long stride_b, const void* beta, void* c, \
      cudaDataType c_type, Int ldc, long long stride_c, Int batch, cublasComputeType_t compute,   \
      cublasGemmAlgo_t algo);
SIMT_GEMMS(, int)
SIMT_GEMMS(_64, std::int64_t)
#undef SIMT_GEMMS
}
