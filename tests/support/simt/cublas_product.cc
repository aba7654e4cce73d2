// A product of matrices: reads, arithmetic, epilogue, writes.
#include "tests/support/simt/cublas_product.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/support/simt/counters.h"
#include "tests/support/simt/device.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/small_floats.h"

namespace simt {
namespace {

std::atomic<std::uint64_t>& number_of_products() {
  static std::atomic<std::uint64_t> instance{0};
  return instance;
}

float load(const std::uint8_t* data, int type) {
  std::uint16_t bits = 0;
  float value = 0;
  if (type == CUDA_R_32F) {
    std::memcpy(&value, data, 4);
    return value;
  }
  std::memcpy(&bits, data, 2);
  return type == CUDA_R_16F ? half_to_float(bits) : bfloat16_to_float(bits);
}

void store(std::uint8_t* data, int type, float value) {
  if (type == CUDA_R_32F) {
    std::memcpy(data, &value, 4);
    return;
  }
  const std::uint16_t bits = type == CUDA_R_16F ? float_to_half(value) : float_to_bfloat16(value);
  std::memcpy(data, &bits, 2);
}

// f(first element, elements) for the parts of a matrix that lie together.
template <typename F>
bool for_each_run(const Matrix& x, std::int64_t batch, F f) {
  if (x.length() == 0 || x.vectors() == 0) return true;
  if (x.ld == x.length()) return f(x.at(batch, 0, 0), x.length() * x.vectors());
  for (std::int64_t v = 0; v < x.vectors(); ++v) {
    if (!f(x.row_major ? x.at(batch, v, 0) : x.at(batch, 0, v), x.length())) return false;
  }
  return true;
}

bool read_matrix(const Matrix& x, std::int64_t batch, const Operation& operation) {
  return for_each_run(x, batch, [&](std::uint8_t* data, std::int64_t elements) {
    return library_reads(data, static_cast<std::size_t>(elements) * size_of(x.type), x.name,
                         operation);
  });
}

bool write_matrix(const Matrix& x, std::int64_t batch, const Operation& operation) {
  return for_each_run(x, batch, [&](std::uint8_t* data, std::int64_t elements) {
    return library_writes(data, static_cast<std::size_t>(elements) * size_of(x.type), x.name,
                          operation);
  });
}

double gelu_inner(double x) {
  return std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x);
}
float gelu(float x) {
  return static_cast<float>(0.5 * x * (1 + std::tanh(gelu_inner(x))));
}
float gelu_derivative(float x) {
  const double t = std::tanh(gelu_inner(x));
  const double inner = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
  return static_cast<float>(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner);
}

bool reads_aux(std::uint32_t epilogue) {
  return epilogue & (kDRelu | kDGelu);
}
// A vector of the epilogue: the bias, or a gradient of one.
Matrix bias_vector(const Product& p) {
  return {.name = "the bias",
          .data = p.bias,
          .type = p.d.type,
          .rows = p.epilogue & kGradientB ? p.n : p.m,
          .cols = 1,
          .ld = p.epilogue & kGradientB ? p.n : p.m,
          .stride = p.bias_stride};
}
Matrix aux_matrix(const Product& p) {
  return {.name = "the auxiliary matrix",
          .data = p.aux,
          .type = p.d.type,
          .rows = p.m,
          .cols = p.n,
          .ld = p.aux_ld,
          .stride = p.aux_stride};
}

bool touch_aux_bits(const Product& p, std::int64_t batch, const Operation& operation) {
  for (std::int64_t col = 0; col < p.n; ++col) {
    std::uint8_t* data = p.aux + (batch * p.aux_stride + col * p.aux_ld) / 8;
    // What is written is whole rows of the mask, with anything behind their last bits.
    const auto bits = static_cast<std::size_t>(reads_aux(p.epilogue) ? p.m : p.aux_ld);
    const std::size_t bytes = (bits + 7) / 8;
    const bool good = reads_aux(p.epilogue)
                          ? library_reads(data, bytes, "the auxiliary matrix", operation)
                          : library_writes(data, bytes, "the auxiliary matrix", operation);
    if (!good) return false;
    if (!reads_aux(p.epilogue)) std::memset(data, 0xAB, bytes);
  }
  return true;
}

// Sums in two parts, as a kernel that splits k does: [m, n] by rows.
std::vector<float> multiply(const Product& p, const std::vector<float>& a,
                            const std::vector<float>& b) {
  const std::int64_t split = p.k == 0 ? 0 : static_cast<std::int64_t>(schedule_seed() * 7) % p.k;
  std::vector<float> sums(static_cast<std::size_t>(p.m * p.n)),
      second(static_cast<std::size_t>(p.n));
  for (std::int64_t i = 0; i < p.m; ++i) {
    float* const first = sums.data() + i * p.n;
    std::fill(second.begin(), second.end(), 0.0f);
    for (std::int64_t k = 0; k < p.k; ++k) {
      const float x = a[static_cast<std::size_t>(i * p.k + k)];
      const float* const row = b.data() + k * p.n;
      float* const to = k < split ? first : second.data();
      for (std::int64_t j = 0; j < p.n; ++j) to[j] += x * row[j];
    }
    for (std::int64_t j = 0; j < p.n; ++j) first[j] += second[static_cast<std::size_t>(j)];
  }
  return sums;
}

// op(X) by rows.
std::vector<float> gather(const Matrix& x, std::int64_t batch, bool transposed, bool truncate) {
  const std::int64_t rows = transposed ? x.cols : x.rows, cols = transposed ? x.rows : x.cols;
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      const float value = load(transposed ? x.at(batch, j, i) : x.at(batch, i, j), x.type);
      values[static_cast<std::size_t>(i * cols + j)] = truncate ? truncate_to_tf32(value) : value;
    }
  }
  return values;
}

void store_bias(const Product& p, std::int64_t batch, const std::vector<double>& sums,
                const Operation& operation) {
  const Matrix bias = bias_vector(p);
  if (!write_matrix(bias, batch, operation)) return;
  for (std::int64_t i = 0; i < bias.rows; ++i) {
    store(bias.at(batch, i, 0), bias.type, static_cast<float>(sums[static_cast<std::size_t>(i)]));
  }
}

void run_batch(const Product& p, std::int64_t batch, const Operation& operation) {
  const bool multiplies = p.alpha != 0 && p.k > 0;
  const bool gradient = p.epilogue & (kGradientA | kGradientB);
  std::vector<float> a(static_cast<std::size_t>(p.m * p.k)), b(static_cast<std::size_t>(p.k * p.n));
  if (multiplies || gradient) {
    if (!read_matrix(p.a, batch, operation) || !read_matrix(p.b, batch, operation)) return;
    a = gather(p.a, batch, p.trans_a, p.truncate);
    b = gather(p.b, batch, p.trans_b, p.truncate);
  }
  std::vector<float> sums = multiply(p, a, b);
  if (p.beta != 0 && !read_matrix(p.c, batch, operation)) return;
  if ((p.epilogue & kBias) && !read_matrix(bias_vector(p), batch, operation)) return;
  const Matrix aux = aux_matrix(p);
  if (p.epilogue & kAux) {
    if (aux_is_bits(p.epilogue) ? !touch_aux_bits(p, batch, operation)
        : reads_aux(p.epilogue) ? !read_matrix(aux, batch, operation)
                                : !write_matrix(aux, batch, operation)) {
      return;
    }
  }
  std::vector<double> bias_gradient(static_cast<std::size_t>(p.epilogue & kGradientB ? p.n : p.m));
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      float& x = sums[static_cast<std::size_t>(i * p.n + j)];
      x = multiplies ? p.alpha * x : 0.0f;
      if (p.beta != 0) x += p.beta * load(p.c.at(batch, i, j), p.c.type);
      if (p.epilogue & kBias) x += load(bias_vector(p).at(batch, i, 0), p.d.type);
      if (aux_is_bits(p.epilogue) && (p.epilogue & kAux)) {
        const std::int64_t bit = batch * p.aux_stride + j * p.aux_ld + i;
        std::uint8_t& byte = p.aux[bit / 8];
        const auto mask = static_cast<std::uint8_t>(1u << (bit % 8));
        if (p.epilogue & kDRelu) {
          if (!(byte & mask)) x = 0;
        } else {
          byte = static_cast<std::uint8_t>(x > 0 ? byte | mask : byte & ~mask);
        }
      } else if (p.epilogue & kDGelu) {
        x *= gelu_derivative(load(aux.at(batch, i, j), aux.type));
      } else if (p.epilogue & kAux) {
        store(aux.at(batch, i, j), aux.type, x);
      }
      if (p.epilogue & kRelu) x = x > 0 ? x : 0;  // of a NaN too, as on a GPU
      if (p.epilogue & kGelu) x = gelu(x);
      if (p.epilogue & kBiasGradient) bias_gradient[static_cast<std::size_t>(i)] += x;
    }
  }
  for (std::int64_t k = 0; gradient && k < p.k; ++k) {
    const bool of_a = p.epilogue & kGradientA;
    for (std::int64_t i = 0; i < (of_a ? p.m : p.n); ++i) {
      bias_gradient[static_cast<std::size_t>(i)] += of_a ? a[static_cast<std::size_t>(i * p.k + k)]
                                                         : b[static_cast<std::size_t>(k * p.n + i)];
    }
  }
  if (!write_matrix(p.d, batch, operation)) return;
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      store(p.d.at(batch, i, j), p.d.type, sums[static_cast<std::size_t>(i * p.n + j)]);
    }
  }
  if (gradient || (p.epilogue & kBiasGradient)) store_bias(p, batch, bias_gradient, operation);
}

// A call uses both ends of the workspace that it was given.
bool spoil_workspace(const Product& p, const Operation& operation) {
  auto* const data = static_cast<std::uint8_t*>(p.workspace);
  const std::size_t part = std::min<std::size_t>(p.workspace_bytes, 4096);
  for (std::uint8_t* at : {data, data + p.workspace_bytes - part}) {
    if (!library_writes(at, part, "the workspace", operation)) return false;
    std::memset(at, 0xAB, part);
  }
  return true;
}

void run(Product p, const Operation& operation) {
  const DeviceAccess access;
  if (p.scalars_on_device) {
    if (!library_reads(p.alpha_at, 4, "alpha", operation) ||
        !library_reads(p.beta_at, 4, "beta", operation)) {
      return;
    }
    std::memcpy(&p.alpha, p.alpha_at, 4);
    std::memcpy(&p.beta, p.beta_at, 4);
  }
  if (p.workspace_bytes > 0 && !spoil_workspace(p, operation)) return;
  for (std::int64_t i = 0; i < p.batch; ++i) run_batch(p, i, operation);
}
std::string check_matrix(const Product& p, const Matrix& x) {
  const std::string name = x.name;
  if (x.rows == 0 || x.cols == 0) return {};
  if (x.ld < std::max<std::int64_t>(1, x.length())) {
    return "the leading dimension of " + name + " is " + std::to_string(x.ld) + ", its " +
           (x.row_major ? "rows" : "columns") + " have " + std::to_string(x.length()) + " elements";
  }
  if (reinterpret_cast<std::uintptr_t>(x.data) % size_of(x.type) != 0) {
    return "the address of " + name + " is no multiple of its elements' size";
  }
  if (!is_device_memory(x.data)) return name + " is not in device memory";
  if (p.batch > 1 && &x == &p.d &&
      static_cast<std::size_t>(std::abs(x.stride)) * size_of(x.type) < x.bytes()) {
    return "the products of a batch overlap in " + name;
  }
  return {};
}

}  // namespace

std::size_t size_of(int type) {
  switch (type) {
    case CUDA_R_32F:
      return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    default:
      return 0;  // not simulated
  }
}
bool aux_is_bits(std::uint32_t epilogue) {
  return epilogue & (kRelu | kDRelu);
}

std::string check_memory(const Product& p) {
  const auto extent = [&](const Matrix& x) {
    return x.bytes() +
           static_cast<std::size_t>((p.batch - 1) * std::abs(x.stride)) * size_of(x.type);
  };
  for (const Matrix* x : {&p.a, &p.b}) {
    if (p.k == 0 || (!p.scalars_on_device && p.alpha == 0)) continue;
    if (std::string problem = check_matrix(p, *x); !problem.empty()) return problem;
    if (overlap(x->data, extent(*x), p.d.data, extent(p.d))) {
      return std::string(x->name) + " and " + p.d.name + " overlap";
    }
  }
  if (std::string problem = check_matrix(p, p.d); !problem.empty()) return problem;
  if (p.c.data == p.d.data && p.c.ld == p.d.ld && p.c.stride == p.d.stride) return {};
  if (!p.scalars_on_device && p.beta == 0) return {};
  if (std::string problem = check_matrix(p, p.c); !problem.empty()) return problem;
  return overlap(p.c.data, extent(p.c), p.d.data, extent(p.d)) ? "C and D overlap" : "";
}

std::string take_scalars(Product& p, const void* alpha, const void* beta, bool on_device) {
  if (!alpha || !beta) return "alpha or beta is a null pointer";
  p.scalars_on_device = on_device;
  p.alpha_at = alpha;
  p.beta_at = beta;
  if (on_device != is_device_memory(alpha) || on_device != is_device_memory(beta)) {
    return on_device ? "the pointer mode is that of the device, alpha or beta is the host's"
                     : "the pointer mode is that of the host, alpha or beta is the device's";
  }
  if (on_device) return {};
  std::memcpy(&p.alpha, alpha, 4);
  std::memcpy(&p.beta, beta, 4);
  return {};
}

bool types_are_supported(int a, int b, int d, cublasComputeType_t compute) {
  if (a != b) return false;
  switch (compute) {
    case CUBLAS_COMPUTE_32F:
    case CUBLAS_COMPUTE_32F_PEDANTIC:
      return (a == CUDA_R_32F && d == CUDA_R_32F) ||
             ((a == CUDA_R_16F || a == CUDA_R_16BF) && (d == a || d == CUDA_R_32F));
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      return a == CUDA_R_32F && d == CUDA_R_32F;
    default:
      return false;
  }
}

std::uint64_t products_queued() {
  return number_of_products();
}

cublasStatus_t queue(Product p, cudaStream_t stream) {
  if (!stream_exists(stream_id(stream))) {
    return refuse(CUBLAS_STATUS_EXECUTION_FAILED,
                  p.call + ": the stream does not exist or was destroyed");
  }
  if (device_of(stream_id(stream)) != current_device()) {
    return refuse(CUBLAS_STATUS_EXECUTION_FAILED,
                  p.call + ": the stream is not of the current device");
  }
  ++number_of_products();
  const std::string name = p.call;
  enqueue(stream_id(stream), name,
          [p = std::move(p)](const Operation& operation) { run(p, operation); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace simt
