// cuBLASLt's descriptors: made, filled in attribute by attribute, destroyed.
#include "tests/support/simt/cublas_lt.h"

#include <cstring>
#include <optional>
#include <set>
#include <string>

#include "tests/support/simt/cublas_product.h"

namespace simt {
namespace {

std::set<const void*>& descriptors() {
  static std::set<const void*> instance;
  return instance;
}

template <typename Descriptor>
cublasStatus_t made(Descriptor* descriptor, const char* what) {
  descriptors().insert(descriptor);
  library_object_made(descriptor, what);
  return CUBLAS_STATUS_SUCCESS;
}

template <typename Descriptor>
cublasStatus_t destroy(Descriptor* descriptor, const char* call) {
  const RuntimeLock lock;
  if (!is_descriptor(descriptor, call)) return CUBLAS_STATUS_INVALID_VALUE;
  descriptors().erase(descriptor);
  library_object_gone(descriptor);
  delete descriptor;
  return CUBLAS_STATUS_SUCCESS;
}

struct Field {
  void* to;
  std::size_t bytes;
};
template <typename T>
Field field(T& to) {
  return {&to, sizeof to};
}

cublasStatus_t set(const char* call, std::optional<Field> to, const void* value,
                   std::size_t bytes) {
  if (!to) {
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                  std::string(call) + ": the attribute is not simulated");
  }
  if (!value || bytes != to->bytes) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, std::string(call) + ": the attribute has " +
                                                   std::to_string(to->bytes) + " bytes, " +
                                                   std::to_string(bytes) + " were given");
  }
  std::memcpy(to->to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

bool is_descriptor(const void* descriptor, const char* call) {
  if (descriptors().count(descriptor)) return true;
  refuse(CUBLAS_STATUS_INVALID_VALUE,
         std::string(call) + ": a descriptor does not exist or was destroyed");
  return false;
}

}  // namespace simt

using namespace simt;

extern "C" {

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  const RuntimeLock lock;
  *desc = new cublasLtMatmulDescOpaque_t{compute, scale};
  return made(*desc, "cuBLASLt descriptor of a product");
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  return destroy(desc, "cublasLtMatmulDescDestroy");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  const RuntimeLock lock;
  const char* const call = "cublasLtMatmulDescSetAttribute";
  if (!is_descriptor(desc, call)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto to = [&]() -> std::optional<Field> {
    switch (attribute) {
      case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return field(desc->compute);
      case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return field(desc->scale);
      case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return field(desc->pointer_mode);
      case CUBLASLT_MATMUL_DESC_TRANSA:
        return field(desc->trans_a);
      case CUBLASLT_MATMUL_DESC_TRANSB:
        return field(desc->trans_b);
      case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return field(desc->epilogue);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return field(desc->bias);
      case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
        return field(desc->bias_stride);
      case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return field(desc->aux);
      case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return field(desc->aux_ld);
      case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
        return field(desc->aux_stride);
      case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE:
        return field(desc->aux_type);
      case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return field(desc->bias_type);
    }
    return std::nullopt;
  }();
  return set(call, to, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t cols, std::int64_t ld) {
  const RuntimeLock lock;
  *layout = new cublasLtMatrixLayoutOpaque_t{type, rows, cols, ld};
  return made(*layout, "cuBLASLt layout");
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy(layout, "cublasLtMatrixLayoutDestroy");
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, std::size_t bytes) {
  const RuntimeLock lock;
  const char* const call = "cublasLtMatrixLayoutSetAttribute";
  if (!is_descriptor(layout, call)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto to = [&]() -> std::optional<Field> {
    switch (attribute) {
      case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return field(layout->type);
      case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return field(layout->order);
      case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return field(layout->rows);
      case CUBLASLT_MATRIX_LAYOUT_COLS:
        return field(layout->cols);
      case CUBLASLT_MATRIX_LAYOUT_LD:
        return field(layout->ld);
      case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return field(layout->batch);
      case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return field(layout->stride);
    }
    return std::nullopt;
  }();
  return set(call, to, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  const RuntimeLock lock;
  *preference = new cublasLtMatmulPreferenceOpaque_t;
  return made(*preference, "cuBLASLt preference");
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy(preference, "cublasLtMatmulPreferenceDestroy");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  const RuntimeLock lock;
  const char* const call = "cublasLtMatmulPreferenceSetAttribute";
  if (!is_descriptor(preference, call)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto to = [&]() -> std::optional<Field> {
    switch (attribute) {
      case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
        return field(preference->search_mode);
      case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return field(preference->workspace);
      case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return field(preference->reduction_mask);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return field(preference->alignment[0]);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return field(preference->alignment[1]);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return field(preference->alignment[2]);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return field(preference->alignment[3]);
    }
    return std::nullopt;
  }();
  return set(call, to, value, bytes);
}

}  // extern "C"
