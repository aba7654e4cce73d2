// cuBLASLt's matrices are column-major, so ours are their transposes: result^T = b^T a^T. What a
// product of this shape is best done by, cuBLASLt finds out once and remembers.
#include "kernels/cuda/matrix_product.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "serrate/buffer.h"
#include "src/core/cuda_check.h"

namespace serrate {
namespace {

void cublas_check(cublasStatus_t status,
                  const std::source_location& where = std::source_location::current()) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail_check(std::string("cuBLAS: ") + cublasLtGetStatusName(status), where);
}

/// A handle of cuBLASLt, for Stream::attached().
class CublasLt {
 public:
  explicit CublasLt(const Stream&) { cublas_check(cublasLtCreate(&handle_)); }
  ~CublasLt() { cublasLtDestroy(handle_); }
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;
  cublasLtHandle_t handle() const { return handle_; }

 private:
  cublasLtHandle_t handle_ = nullptr;
};

template <auto kDestroy>
struct Destroy {
  template <typename T>
  void operator()(T* descriptor) const {
    kDestroy(descriptor);
  }
};
template <typename Handle, auto kDestroy>
using Descriptor = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<kDestroy>>;
using Operation = Descriptor<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Descriptor<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Descriptor<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <typename T>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  cublas_check(cublasLtMatmulDescSetAttribute(operation.get(), attribute, &value, sizeof(value)));
}

template <typename T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute,
         const T& value) {
  cublas_check(
      cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)));
}

bool is_relu(Activation f) {
  return f == Activation::kRelu;
}

// In elements; for relu, in bits.
std::int64_t kept_stride(Activation f, std::int64_t cols) {
  return is_relu(f) ? (cols + 127) / 128 * 128 : cols;
}

cublasLtEpilogue_t epilogue_of(const MatrixProduct& product) {
  const bool has_bias = product.bias.cols > 0;
  if (!product.activation) return has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  const bool relu = is_relu(product.activation->f);
  if (product.activation->pass == ProductActivation::Pass::kBackward) {
    check(!has_bias, "a product with a derivative has no bias");
    return relu ? CUBLASLT_EPILOGUE_DRELU : CUBLASLT_EPILOGUE_DGELU;
  }
  if (relu) return has_bias ? CUBLASLT_EPILOGUE_RELU_AUX_BIAS : CUBLASLT_EPILOGUE_RELU_AUX;
  return has_bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
}

Operation operation_of(const MatrixProduct& product) {
  cublasLtMatmulDesc_t made = nullptr;
  const cublasComputeType_t compute =
      product.precision == Precision::kTf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  cublas_check(cublasLtMatmulDescCreate(&made, compute, CUDA_R_32F));
  Operation operation(made);
  const auto transposition = [](Operand operand) -> std::int32_t {
    return operand == Operand::kAsIs ? CUBLAS_OP_N : CUBLAS_OP_T;
  };
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, transposition(product.b_is));
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, transposition(product.a_is));
  set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(product));
  if (product.bias.cols > 0) {
    set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, product.bias.device_data());
  }
  if (product.activation) {
    void* const kept = product.activation->kept.device_data();
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, kept);
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD,
        kept_stride(product.activation->f, product.result.cols));
  }
  return operation;
}

cudaDataType_t type_of(const InputMatrix& matrix) {
  check(matrix.type != DataType::kFloat16, "products are of float32 or bfloat16 matrices");
  return matrix.type == DataType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
}

Layout layout_of(const InputMatrix& matrix) {
  cublasLtMatrixLayout_t made = nullptr;
  cublas_check(cublasLtMatrixLayoutCreate(
      &made, type_of(matrix), static_cast<std::uint64_t>(matrix.cols),
      static_cast<std::uint64_t>(matrix.rows), std::max<std::int64_t>(matrix.stride, 1)));
  return Layout(made);
}

std::uint32_t alignment_of(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  return static_cast<std::uint32_t>(std::min<std::uintptr_t>(address & -address, 256));
}

Preference preference_of(const MatrixProduct& product) {
  constexpr std::uint64_t kMostWorkspace = 4 << 20;
  cublasLtMatmulPreference_t made = nullptr;
  cublas_check(cublasLtMatmulPreferenceCreate(&made));
  Preference preference(made);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      alignment_of(product.b.device_data()));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      alignment_of(product.a.device_data()));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      alignment_of(product.result.device_data()));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
      alignment_of(product.result.device_data()));
  return preference;
}

Error no_algorithm_error(const MatrixProduct& product) {
  const std::int64_t inner = product.a_is == Operand::kAsIs ? product.a.cols : product.a.rows;
  const std::string name =
      fmt::format("a product [{}, {}] x [{}, {}] of {}", product.result.rows, inner, inner,
                  product.result.cols, to_string(product.a.type));
  if (!product.activation) {
    return Error(
        fmt::format("cuBLASLt has no algorithm for {} (not every GPU has one for every "
                    "type): choose another precision",
                    name));
  }
  return Error(
      fmt::format("cuBLASLt has no algorithm for {} with {} (its epilogues do not take "
                  "every shape): choose the activation gelu or silu",
                  name, to_string(product.activation->f)));
}

}  // namespace

// CUBLASLT_EPILOGUE_GELU is the form by tanh.
bool products_apply(Activation f, std::int64_t cols) {
  return (f == Activation::kRelu || f == Activation::kGeluTanh) && cols % 8 == 0;
}

std::int64_t product_kept_bytes(Activation f, std::int64_t rows, std::int64_t cols, DataType type) {
  const std::int64_t stride = kept_stride(f, cols);
  return rows * (is_relu(f) ? stride / 8 : stride * size_of(type));
}

void multiply(const MatrixProduct& product, const Stream& stream) {
  if (product.result.rows == 0 || product.result.cols == 0) return;
  const cublasLtHandle_t handle = stream.attached<CublasLt>().handle();
  const Operation operation = operation_of(product);
  const Layout a = layout_of(product.b), b = layout_of(product.a);
  const Layout d = layout_of(product.result);
  const Preference preference = preference_of(product);
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, operation.get(), a.get(), b.get(), d.get(), d.get(),
                                     preference.get(), 1, &best, &found);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) cublas_check(status);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0 || best.state != CUBLAS_STATUS_SUCCESS) {
    throw no_algorithm_error(product);
  }
  Buffer<std::uint8_t> workspace(static_cast<std::int64_t>(best.workspaceSize), stream);
  const float one = 1, beta = product.write == MatrixProduct::Write::kAccumulate ? 1 : 0;
  void* const result = product.result.device_data();
  cublas_check(cublasLtMatmul(handle, operation.get(), &one, product.b.device_data(), a.get(),
                              product.a.device_data(), b.get(), &beta, result, d.get(), result,
                              d.get(), &best.algo, workspace.device_data(), best.workspaceSize,
                              cuda_stream(stream)));
}

}  // namespace serrate
