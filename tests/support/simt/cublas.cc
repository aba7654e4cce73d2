// cuBLAS: handles and products. What the documentation does not allow is a finding that says so,
// and the status that the real call would have.
#include <cublas_v2.h>

#include <map>
#include <utility>

#include "tests/support/simt/cublas_product.h"

namespace simt {
namespace {

// Handles are numbers that are not used again.
std::map<std::uintptr_t, Handle>& handles() {
  static std::map<std::uintptr_t, Handle> instance;
  return instance;
}

struct Gemm {
  cublasOperation_t trans_a, trans_b;
  std::int64_t m, n, k;
  const void *alpha, *a;
  int a_type;
  std::int64_t lda, stride_a;
  const void* b;
  int b_type;
  std::int64_t ldb, stride_b;
  const void* beta;
  void* c;
  int c_type;
  std::int64_t ldc, stride_c, batch;
  cublasComputeType_t compute;
};

cublasStatus_t gemm(const char* call, cublasHandle_t handle, const Gemm& g) {
  const RuntimeLock lock;
  const Handle* const h = handle_of(handle, call);
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  const std::string prefix = std::string(call) + ": ";
  const auto invalid = [&](const std::string& text) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, prefix + text);
  };
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.batch < 0) return invalid("a size is negative");
  if (!types_are_supported(g.a_type, g.b_type, g.c_type, g.compute)) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, prefix + "no product has these types");
  }
  const bool ta = g.trans_a != CUBLAS_OP_N, tb = g.trans_b != CUBLAS_OP_N;
  Product p;
  p.call = call;
  p.m = g.m;
  p.n = g.n;
  p.k = g.k;
  p.batch = g.batch;
  p.trans_a = ta;
  p.trans_b = tb;
  p.truncate = g.a_type == CUDA_R_32F &&
               (g.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                (g.compute == CUBLAS_COMPUTE_32F && h->math_mode == CUBLAS_TF32_TENSOR_OP_MATH));
  p.a = {.name = "A",
         .data = bytes_of(g.a),
         .type = g.a_type,
         .rows = ta ? g.k : g.m,
         .cols = ta ? g.m : g.k,
         .ld = g.lda,
         .stride = g.stride_a};
  p.b = {.name = "B",
         .data = bytes_of(g.b),
         .type = g.b_type,
         .rows = tb ? g.n : g.k,
         .cols = tb ? g.k : g.n,
         .ld = g.ldb,
         .stride = g.stride_b};
  p.c = {.name = "C",
         .data = bytes_of(g.c),
         .type = g.c_type,
         .rows = g.m,
         .cols = g.n,
         .ld = g.ldc,
         .stride = g.stride_c};
  p.d = p.c;
  if (g.m == 0 || g.n == 0 || g.batch == 0) return CUBLAS_STATUS_SUCCESS;
  const bool on_device = h->pointer_mode == CUBLAS_POINTER_MODE_DEVICE;
  if (std::string text = take_scalars(p, g.alpha, g.beta, on_device); !text.empty()) {
    return invalid(text);
  }
  if (std::string text = check_memory(p); !text.empty()) return invalid(text);
  p.workspace = h->workspace;
  p.workspace_bytes = h->workspace_bytes;
  return queue(std::move(p), h->stream);
}

}  // namespace

cublasStatus_t refuse(cublasStatus_t status, const std::string& text) {
  report_call(Kind::kBadCall, text);
  return status;
}
std::uintptr_t make_handle(const char* what) {
  static std::uintptr_t next = 0x1000;
  next += 16;
  handles()[next] = {};
  library_object_made(reinterpret_cast<void*>(next), what);
  return next;
}

Handle* handle_of(const void* handle, const char* call) {
  const auto found = handles().find(reinterpret_cast<std::uintptr_t>(handle));
  if (found != handles().end()) return &found->second;
  refuse(CUBLAS_STATUS_NOT_INITIALIZED,
         std::string(call) + ": the handle does not exist or was destroyed");
  return nullptr;
}

cublasStatus_t destroy_handle(const void* handle, const char* call) {
  if (!handle_of(handle, call)) return CUBLAS_STATUS_NOT_INITIALIZED;
  handles().erase(reinterpret_cast<std::uintptr_t>(handle));
  library_object_gone(handle);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace simt

using namespace simt;

extern "C" {

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  const RuntimeLock lock;
  *handle = reinterpret_cast<cublasHandle_t>(make_handle("cuBLAS handle"));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  const cublasStatus_t status = [&] {
    const RuntimeLock lock;
    return destroy_handle(handle, "cublasDestroy");
  }();
  cudaDeviceSynchronize();  // as the real one does
  return status;
}

cublasStatus_t cublasGetVersion(cublasHandle_t, int* version) {
  *version = 130000;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
      return "?";
  }
}

const char* cublasGetStatusString(cublasStatus_t status) {
  return cublasGetStatusName(status);
}

// The stream's change brings the default workspace back.
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  const RuntimeLock lock;
  Handle* const h = handle_of(handle, "cublasSetStream");
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  h->stream = stream;
  h->workspace = nullptr;
  h->workspace_bytes = 0;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream(cublasHandle_t handle, cudaStream_t* stream) {
  const RuntimeLock lock;
  const Handle* const h = handle_of(handle, "cublasGetStream");
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  *stream = h->stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes) {
  const RuntimeLock lock;
  Handle* const h = handle_of(handle, "cublasSetWorkspace");
  if (!h) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE,
                  "cublasSetWorkspace: the address is no multiple of 256");
  }
  if (bytes > 0 && !is_device_memory(workspace)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE,
                  "cublasSetWorkspace: the workspace is not in device memory");
  }
  h->workspace = workspace;
  h->workspace_bytes = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

#define SIMT_MODE(name, Type, member)                                  \
  cublasStatus_t cublasSet##name(cublasHandle_t handle, Type value) {  \
    const RuntimeLock lock;                                            \
    Handle* const h = handle_of(handle, "cublasSet" #name);            \
    if (h) h->member = value;                                          \
    return h ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;  \
  }                                                                    \
  cublasStatus_t cublasGet##name(cublasHandle_t handle, Type* value) { \
    const RuntimeLock lock;                                            \
    const Handle* const h = handle_of(handle, "cublasGet" #name);      \
    if (h) *value = h->member;                                         \
    return h ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;  \
  }
SIMT_MODE(PointerMode, cublasPointerMode_t, pointer_mode)
SIMT_MODE(MathMode, cublasMath_t, math_mode)
#undef SIMT_MODE

#define SIMT_GEMMS(suffix, Int)                                                                   \
  cublasStatus_t cublasSgemm##suffix(cublasHandle_t handle, cublasOperation_t trans_a,            \
                                     cublasOperation_t trans_b, Int m, Int n, Int k,              \
                                     const float* alpha, const float* a, Int lda, const float* b, \
                                     Int ldb, const float* beta, float* c, Int ldc) {             \
    return gemm("cublasSgemm", handle,                                                            \
                {trans_a,    trans_b, m,          n,   k,          alpha, a,                      \
                 CUDA_R_32F, lda,     0,          b,   CUDA_R_32F, ldb,   0,                      \
                 beta,       c,       CUDA_R_32F, ldc, 0,          1,     CUBLAS_COMPUTE_32F});   \
  }                                                                                               \
  cublasStatus_t cublasGemmEx##suffix(                                                            \
      cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b, Int m, Int n,  \
      Int k, const void* alpha, const void* a, cudaDataType a_type, Int lda, const void* b,       \
      cudaDataType b_type, Int ldb, const void* beta, void* c, cudaDataType c_type, Int ldc,      \
      cublasComputeType_t compute, cublasGemmAlgo_t) {                                            \
    return gemm("cublasGemmEx", handle,                                                           \
                {trans_a, trans_b, m, n,    k, alpha,  a,   a_type, lda, 0,      b,               \
                 b_type,  ldb,     0, beta, c, c_type, ldc, 0,      1,   compute});               \
  }                                                                                               \
  cublasStatus_t cublasGemmStridedBatchedEx##suffix(                                              \
      cublasHandle_t handle, cublasOperation_t trans_a, cublasOperation_t trans_b, Int m, Int n,  \
      Int k, const void* alpha, const void* a, cudaDataType a_type, Int lda, long long stride_a,  \
      const void* b, cudaDataType b_type, Int ldb, long long stride_b, const void* beta, void* c, \
      cudaDataType c_type, Int ldc, long long stride_c, Int batch, cublasComputeType_t compute,   \
      cublasGemmAlgo_t) {                                                                         \
    return gemm("cublasGemmStridedBatchedEx", handle,                                             \
                {trans_a, trans_b, m,        n,    k, alpha,  a,   a_type,   lda,   stride_a, b,  \
                 b_type,  ldb,     stride_b, beta, c, c_type, ldc, stride_c, batch, compute});    \
  }
SIMT_GEMMS(, int)
SIMT_GEMMS(_64, std::int64_t)
#undef SIMT_GEMMS

}  // extern "C"
