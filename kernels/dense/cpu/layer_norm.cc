#include <algorithm>
#include <cmath>

#include "kernels/shapes.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"
#include "serrate/kernels/layer_norm.h"

#ifndef SERRATE_KERNELS_HOST_LAYER_NORM
#define SERRATE_KERNELS_HOST_LAYER_NORM
namespace serrate {

// LayerNormForward and LayerNormBackward as the CPU reads them.
struct HostLayerNormForward {
  MatrixView<const float> x;
  std::span<const float> gamma, beta;
  MatrixView<float> y;
  std::span<float> mean, rstd;
  float eps;
};
struct HostLayerNormBackward {
  MatrixView<const float> x, d_y;
  std::span<const float> gamma, mean, rstd;
  MatrixView<float> d_x;
  LayerNormBackward::Write write;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/layer_norm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

void layer_norm_forward_rows(const HostLayerNormForward& args, std::int64_t begin,
                             std::int64_t end) {
  const std::int64_t dim = args.x.cols;
  for (std::int64_t r = begin; r < end; ++r) {
    const float* x = args.x.row(r);
    float* y = args.y.row(r);
    FloatVector sum = hn::Zero(kFloats), squares = hn::Zero(kFloats);
    for_each_vector(
        dim, [&](auto lanes, std::int64_t c) HWY_ATTR { sum = hn::Add(sum, lanes.load(x + c)); });
    args.mean[r] = sum_lanes(sum) / static_cast<float>(dim);
    const FloatVector mean = hn::Set(kFloats, args.mean[r]);
    for_each_vector(dim, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector centered =
          lanes.select(hn::Sub(lanes.load(x + c), mean), hn::Zero(kFloats));
      squares = hn::MulAdd(centered, centered, squares);
    });
    args.rstd[r] = 1 / std::sqrt(sum_lanes(squares) / static_cast<float>(dim) + args.eps);
    const FloatVector rstd = hn::Set(kFloats, args.rstd[r]);
    for_each_vector(dim, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector normalized = hn::Mul(hn::Sub(lanes.load(x + c), mean), rstd);
      lanes.store(hn::MulAdd(normalized, lanes.load(&args.gamma[c]), lanes.load(&args.beta[c])),
                  y + c);
    });
  }
}

// Adds to d_gamma and d_beta [dim], of these rows alone. With x^ the normalized x and g = d_y
// gamma: d_x = rstd (g - mean(g) - x^ mean(g x^)).
void layer_norm_backward_rows(const HostLayerNormBackward& args, std::int64_t begin,
                              std::int64_t end, float* d_gamma, float* d_beta) {
  const std::int64_t dim = args.x.cols;
  const bool accumulates = args.write == LayerNormBackward::Write::kAccumulate;
  for (std::int64_t r = begin; r < end; ++r) {
    const float* x = args.x.row(r);
    const float* d_y = args.d_y.row(r);
    float* d_x = args.d_x.row(r);
    const FloatVector mean = hn::Set(kFloats, args.mean[r]), rstd = hn::Set(kFloats, args.rstd[r]);
    FloatVector sum = hn::Zero(kFloats), product = hn::Zero(kFloats);
    for_each_vector(dim, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector normalized = hn::Mul(hn::Sub(lanes.load(x + c), mean), rstd);
      const FloatVector d = lanes.load(d_y + c);
      const FloatVector g = hn::Mul(d, lanes.load(&args.gamma[c]));
      sum = hn::Add(sum, g);
      product = hn::MulAdd(g, normalized, product);
      lanes.store(hn::MulAdd(d, normalized, lanes.load(d_gamma + c)), d_gamma + c);
      lanes.store(hn::Add(d, lanes.load(d_beta + c)), d_beta + c);
    });
    const FloatVector mean_g = hn::Set(kFloats, sum_lanes(sum) / static_cast<float>(dim));
    const FloatVector mean_product = hn::Set(kFloats, sum_lanes(product) / static_cast<float>(dim));
    for_each_vector(dim, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector normalized = hn::Mul(hn::Sub(lanes.load(x + c), mean), rstd);
      const FloatVector g = hn::Mul(lanes.load(d_y + c), lanes.load(&args.gamma[c]));
      const FloatVector centered = hn::NegMulAdd(normalized, mean_product, hn::Sub(g, mean_g));
      const FloatVector before = accumulates ? lanes.load(d_x + c) : hn::Zero(kFloats);
      lanes.store(hn::MulAdd(rstd, centered, before), d_x + c);
    });
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(layer_norm_forward_rows);
HWY_EXPORT(layer_norm_backward_rows);

namespace {

// Threads take columns, so each sum is in the order of the rows.
void add_column_sums(const MatrixView<const float>& x, std::span<float> sums,
                     const Stream& stream) {
  constexpr std::int64_t kColumnBlock = 32;
  const std::int64_t cols = std::ssize(sums);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t begin = 0; begin < cols; begin += kColumnBlock) {
    const std::int64_t end = std::min(cols, begin + kColumnBlock);
    for (std::int64_t r = 0; r < x.rows; ++r) {
      const float* row = x.row(r);
#pragma omp simd
      for (std::int64_t c = begin; c < end; ++c) sums[c] += row[c];
    }
  }
}

}  // namespace

template <>
void layer_norm_forward_on<DeviceType::kCpu>(const LayerNormForward& args, const Stream& stream) {
  if (const LayerNormSum& s = args.sum; s.branch.has_data()) {
    if (s.tokens) token_embedding_forward(*s.tokens, stream);
    dropout_forward(s.key, s.branch, s.residual, s.sum, stream);
  }
  const HostLayerNormForward host{host_view(args.x, stream),
                                  host_view(args.gamma, stream),
                                  host_view(args.beta, stream),
                                  host_view(args.y, stream),
                                  host_view(args.mean, stream),
                                  host_view(args.rstd, stream),
                                  args.eps};
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(args.x.rows); ++chunk) {
    const auto [begin, end] = rows_of_chunk(chunk, args.x.rows);
    HWY_DYNAMIC_DISPATCH(layer_norm_forward_rows)(host, begin, end);
  }
}

template <>
void layer_norm_backward_on<DeviceType::kCpu>(const LayerNormBackward& args, const Stream& stream) {
  const std::int64_t dim = args.x.cols;
  const std::int64_t num_chunks = num_row_chunks(args.x.rows);
  const HostLayerNormBackward host{host_view(args.x, stream),
                                   host_view(args.d_y, stream),
                                   host_view(args.gamma, stream),
                                   host_view(args.mean, stream),
                                   host_view(args.rstd, stream),
                                   host_view(args.d_x, stream),
                                   args.write};
  const auto d_gamma_sum = host_view(args.d_gamma, stream);
  const auto d_beta_sum = host_view(args.d_beta, stream);
  auto buffer = Buffer<float>::zeros(num_chunks * 2 * dim, stream);
  const std::span<float> partials = host_view(buffer.span(), stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    float* d_gamma = partials.data() + chunk * 2 * dim;
    const auto [begin, end] = rows_of_chunk(chunk, args.x.rows);
    HWY_DYNAMIC_DISPATCH(layer_norm_backward_rows)(host, begin, end, d_gamma, d_gamma + dim);
  }
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const float* partial = partials.data() + chunk * 2 * dim;
    for (std::int64_t c = 0; c < dim; ++c) {
      d_gamma_sum[c] += partial[c];
      d_beta_sum[c] += partial[dim + c];
    }
  }
  if (!args.d_branch.has_data()) return;
  dropout_backward(args.key, args.d_x, args.d_branch, stream);
  add_column_sums(host_view(args.d_branch, stream), host_view(args.d_bias, stream), stream);
}

}  // namespace serrate
#endif  // HWY_ONCE
