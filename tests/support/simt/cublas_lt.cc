// cuBLASLt: heuristics and products with epilogues, as strict as cublas.cc.
#include "tests/support/simt/cublas_lt.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "tests/support/simt/cublas_lt_fault.h"
#include "tests/support/simt/cublas_product.h"

namespace simt {
namespace {

std::optional<NoAlgorithm>& no_algorithm() {
  static std::optional<NoAlgorithm> instance;
  return instance;
}

struct Layouts {
  const cublasLtMatrixLayoutOpaque_t *a, *b, *c, *d;
};

struct Refusal {
  cublasStatus_t status;
  std::string text;
};

// The product without its addresses.
std::optional<Refusal> describe(const cublasLtMatmulDescOpaque_t& desc, const Layouts& l,
                                Product* p) {
  const auto invalid = [](const char* text) { return Refusal{CUBLAS_STATUS_INVALID_VALUE, text}; };
  const auto unsupported = [](const char* text) {
    return Refusal{CUBLAS_STATUS_NOT_SUPPORTED, text};
  };
  const auto matrix = [](const char* name, const cublasLtMatrixLayoutOpaque_t& x) {
    return Matrix{.name = name,
                  .type = x.type,
                  .rows = static_cast<std::int64_t>(x.rows),
                  .cols = static_cast<std::int64_t>(x.cols),
                  .ld = x.ld,
                  .stride = x.stride,
                  .row_major = x.order == CUBLASLT_ORDER_ROW};
  };
  p->call = "cublasLtMatmul";
  p->a = matrix("A", *l.a);
  p->b = matrix("B", *l.b);
  p->c = matrix("C", *l.c);
  p->d = matrix("D", *l.d);
  p->trans_a = desc.trans_a != CUBLAS_OP_N;
  p->trans_b = desc.trans_b != CUBLAS_OP_N;
  p->m = p->d.rows;
  p->n = p->d.cols;
  p->k = p->trans_a ? p->a.rows : p->a.cols;
  p->batch = l.d->batch;
  p->truncate = desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  p->epilogue = desc.epilogue;
  if ((p->trans_a ? p->a.cols : p->a.rows) != p->m ||
      (p->trans_b ? p->b.rows : p->b.cols) != p->n ||
      (p->trans_b ? p->b.cols : p->b.rows) != p->k || p->c.rows != p->m || p->c.cols != p->n) {
    return invalid("the shapes of the matrices do not make a product");
  }
  if (l.a->batch != l.d->batch || l.b->batch != l.d->batch || l.c->batch != l.d->batch) {
    return invalid("the matrices differ in the size of the batch");
  }
  if (p->c.type != p->d.type || p->c.row_major != p->d.row_major) {
    return invalid("C and D differ in type or order");
  }
  if (desc.scale != CUDA_R_32F ||
      !types_are_supported(p->a.type, p->b.type, p->d.type, desc.compute)) {
    return unsupported("no product has these types");
  }
  const std::uint32_t e = desc.epilogue;
  static const std::set<std::uint32_t> known = {1,  2,   130, 4,   6,   134, 136, 152,
                                                32, 160, 36,  164, 192, 208, 256, 512};
  if (!known.count(e)) return invalid("there is no such epilogue");
  if (p->d.row_major && e != CUBLASLT_EPILOGUE_DEFAULT && e != CUBLASLT_EPILOGUE_RELU &&
      e != CUBLASLT_EPILOGUE_GELU) {
    return unsupported("the epilogue wants D by columns");
  }
  if (p->batch > 1 && (e & (kBiasGradient | kGradientA | kGradientB))) {
    return unsupported("gradients of a bias are not for batches");
  }
  if (desc.bias_type >= 0 && desc.bias_type != p->d.type) {
    return unsupported("the bias has to be of D's type");
  }
  if (desc.aux_type >= 0 && desc.aux_type != p->d.type && !aux_is_bits(e)) {
    return unsupported("the auxiliary matrix has to be of D's type");
  }
  if (e & kAux) {
    const std::int64_t unit = aux_is_bits(e) ? 128 : 8;
    if (desc.aux_ld < p->m || desc.aux_ld % unit != 0) {
      return invalid(unit == 8
                         ? "the leading dimension of the auxiliary matrix has to be a multiple of "
                           "8 and no less than the rows of D"
                         : "the leading dimension of the auxiliary bits has to be a multiple of "
                           "128 and no less than the rows of D");
    }
    if (p->batch > 1 && desc.aux_stride % unit != 0) {
      return invalid("the batch stride of the auxiliary matrix has to be a multiple of its unit");
    }
  }
  p->bias_stride = desc.bias_stride;
  p->aux_ld = desc.aux_ld;
  p->aux_stride = desc.aux_stride;
  return std::nullopt;
}

// An algorithm is for one problem.
std::uint64_t problem_number(const Product& p) {
  std::uint64_t hash = 1469598103934665603u;
  const auto add = [&](std::int64_t value) {
    hash = (hash ^ static_cast<std::uint64_t>(value)) * 1099511628211u;
  };
  for (const Matrix* x : {&p.a, &p.b, &p.c, &p.d}) {
    for (const std::int64_t value :
         {std::int64_t{x->type}, x->rows, x->cols, x->ld, x->stride, std::int64_t{x->row_major}}) {
      add(value);
    }
  }
  for (const std::int64_t value : {std::int64_t{p.trans_a}, std::int64_t{p.trans_b}, p.batch,
                                   std::int64_t{p.epilogue}, std::int64_t{p.truncate}}) {
    add(value);
  }
  return hash;
}

bool has_bias_pointer(std::uint32_t epilogue) {
  return epilogue & (kBias | kBiasGradient | kGradientA | kGradientB);
}

// Heuristics go by these two addresses, too, without reading there.
std::uint64_t pointers_alignment(const Product& p) {
  std::uintptr_t bits = 256;
  if (has_bias_pointer(p.epilogue)) bits |= reinterpret_cast<std::uintptr_t>(p.bias);
  if (p.epilogue & kAux) bits |= reinterpret_cast<std::uintptr_t>(p.aux);
  return bits & -bits;
}

std::string check_algorithm(const Product& p, const cublasLtMatmulAlgo_t& algo) {
  if (algo.data[0] != problem_number(p)) return "the algorithm is that of another product";
  if (algo.data[1] > p.workspace_bytes) {
    return "the algorithm needs a workspace of " + std::to_string(algo.data[1]) + " bytes, " +
           std::to_string(p.workspace_bytes) + " were given";
  }
  const Matrix* matrices[] = {&p.a, &p.b, &p.c, &p.d};
  for (int i = 0; i < 4; ++i) {
    if (i == 2 && p.beta == 0 && !p.scalars_on_device) continue;
    if (reinterpret_cast<std::uintptr_t>(matrices[i]->data) % algo.data[2 + i] != 0) {
      return std::string("the address of ") + matrices[i]->name + " is no multiple of " +
             std::to_string(algo.data[2 + i]) +
             ", which the preference promised when the algorithm was chosen";
    }
  }
  if (algo.data[6] > pointers_alignment(p)) {
    return "the bias or the auxiliary matrix is less aligned than when the algorithm was chosen";
  }
  return {};
}

}  // namespace

void plant_no_algorithm(std::optional<NoAlgorithm> how) {
  const RuntimeLock lock;
  no_algorithm() = how;
}

}  // namespace simt

using namespace simt;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  const RuntimeLock lock;
  *handle = reinterpret_cast<cublasLtHandle_t>(make_handle("cuBLASLt handle"));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  const RuntimeLock lock;
  return destroy_handle(handle, "cublasLtDestroy");
}

std::size_t cublasLtGetVersion() {
  return 130000;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  return cublasGetStatusName(status);
}

// Some algorithms want all of the workspace that they may have.
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* returned) {
  const RuntimeLock lock;
  const char* const call = "cublasLtMatmulAlgoGetHeuristic";
  *returned = 0;
  if (!handle_of(handle, call)) return CUBLAS_STATUS_NOT_INITIALIZED;
  for (const void* descriptor :
       {static_cast<const void*>(desc), static_cast<const void*>(a), static_cast<const void*>(b),
        static_cast<const void*>(c), static_cast<const void*>(d),
        static_cast<const void*>(preference)}) {
    if (!is_descriptor(descriptor, call)) return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (requested < 1) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, std::string(call) + ": no result was asked for");
  }
  Product p;
  if (const auto refusal = describe(*desc, {a, b, c, d}, &p)) {
    return refuse(refusal->status, std::string(call) + ": " + refusal->text);
  }
  p.bias = static_cast<std::uint8_t*>(desc->bias);
  p.aux = static_cast<std::uint8_t*>(desc->aux);
  if ((has_bias_pointer(p.epilogue) && !p.bias) || ((p.epilogue & kAux) && !p.aux)) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE,
                  std::string(call) + ": the epilogue's addresses are not set yet");
  }
  if (no_algorithm() == NoAlgorithm::kNotSupported) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (no_algorithm() == NoAlgorithm::kNoResult) return CUBLAS_STATUS_SUCCESS;
  *returned = std::min(requested, 2);
  for (int i = 0; i < *returned; ++i) {
    results[i] = {};
    results[i].workspaceSize = schedule()() % 2 ? preference->workspace : 0;
    results[i].state = no_algorithm() ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
    results[i].wavesCount = 1;
    results[i].algo.data[0] = problem_number(p);
    results[i].algo.data[1] = results[i].workspaceSize;
    results[i].algo.data[6] = pointers_alignment(p);
    for (int x = 0; x < 4; ++x) {
      results[i].algo.data[2 + x] = std::max<std::uint32_t>(preference->alignment[x], 1);
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  const RuntimeLock lock;
  const char* const call = "cublasLtMatmul";
  if (!handle_of(handle, call)) return CUBLAS_STATUS_NOT_INITIALIZED;
  for (const void* descriptor :
       {static_cast<const void*>(desc), static_cast<const void*>(a_layout),
        static_cast<const void*>(b_layout), static_cast<const void*>(c_layout),
        static_cast<const void*>(d_layout)}) {
    if (!is_descriptor(descriptor, call)) return CUBLAS_STATUS_INVALID_VALUE;
  }
  Product p;
  if (const auto refusal = describe(*desc, {a_layout, b_layout, c_layout, d_layout}, &p)) {
    return refuse(refusal->status, std::string(call) + ": " + refusal->text);
  }
  const auto invalid = [&](const std::string& text) {
    return refuse(CUBLAS_STATUS_INVALID_VALUE, std::string(call) + ": " + text);
  };
  p.a.data = bytes_of(a);
  p.b.data = bytes_of(b);
  p.c.data = bytes_of(c);
  p.d.data = bytes_of(d);
  p.bias = static_cast<std::uint8_t*>(desc->bias);
  p.aux = static_cast<std::uint8_t*>(desc->aux);
  p.workspace = workspace;
  p.workspace_bytes = workspace_bytes;
  const std::uint32_t e = p.epilogue;
  if (has_bias_pointer(e) && !is_device_memory(p.bias)) {
    return invalid("the epilogue wants a bias in device memory");
  }
  if ((e & kBias) && p.d.type == CUDA_R_16BF &&
      reinterpret_cast<std::uintptr_t>(p.bias) % 16 != 0) {
    return invalid("the epilogue wants a bias of bfloat16 at a multiple of 16");
  }
  if ((e & kAux) &&
      (!is_device_memory(p.aux) || reinterpret_cast<std::uintptr_t>(p.aux) % 16 != 0)) {
    return invalid("the epilogue wants an auxiliary matrix in device memory, at a multiple of 16");
  }
  if (workspace_bytes > 0 &&
      (!is_device_memory(workspace) || reinterpret_cast<std::uintptr_t>(workspace) % 256 != 0)) {
    return invalid("the workspace has to be device memory at a multiple of 256");
  }
  const bool on_device = desc->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
  if (std::string text = take_scalars(p, alpha, beta, on_device); !text.empty())
    return invalid(text);
  if (std::string text = check_memory(p); !text.empty()) return invalid(text);
  if (algo) {
    if (std::string text = check_algorithm(p, *algo); !text.empty()) return invalid(text);
    p.workspace_bytes = algo->data[1];
  }
  if (p.m == 0 || p.n == 0) return CUBLAS_STATUS_SUCCESS;
  return queue(std::move(p), stream);
}

}  // extern "C"
