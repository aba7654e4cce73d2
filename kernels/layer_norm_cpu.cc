#include <algorithm>
#include <cmath>

#include "kernels/shapes.h"
#include "serrate/buffer.h"
#include "serrate/kernels/layer_norm.h"

namespace serrate {
namespace {

void forward_row(const LayerNormForward& args, std::int64_t r) {
  const std::int64_t dim = args.x.cols;
  const float* x = args.x.row(r);
  float sum = 0, squares = 0;
  for (std::int64_t c = 0; c < dim; ++c) sum += x[c];
  const float mean = sum / static_cast<float>(dim);
  for (std::int64_t c = 0; c < dim; ++c) squares += (x[c] - mean) * (x[c] - mean);
  const float rstd = 1 / std::sqrt(squares / static_cast<float>(dim) + args.eps);
  args.mean[r] = mean;
  args.rstd[r] = rstd;
  for (std::int64_t c = 0; c < dim; ++c) {
    args.y.row(r)[c] = (x[c] - mean) * rstd * args.gamma[c] + args.beta[c];
  }
}

void backward_row(const LayerNormBackward& args, std::int64_t r, float* d_gamma, float* d_beta) {
  const std::int64_t dim = args.x.cols;
  const float* x = args.x.row(r);
  const float* d_y = args.d_y.row(r);
  float* d_x = args.d_x.row(r);
  const float mean = args.mean[r], rstd = args.rstd[r];
  float sum = 0, product = 0;
  for (std::int64_t c = 0; c < dim; ++c) {
    const float normalized = (x[c] - mean) * rstd;
    sum += d_y[c] * args.gamma[c];
    product += d_y[c] * args.gamma[c] * normalized;
    d_gamma[c] += d_y[c] * normalized;
    d_beta[c] += d_y[c];
  }
  sum /= static_cast<float>(dim);
  product /= static_cast<float>(dim);
  for (std::int64_t c = 0; c < dim; ++c) {
    const float normalized = (x[c] - mean) * rstd;
    const float d = rstd * (d_y[c] * args.gamma[c] - sum - normalized * product);
    d_x[c] = args.write == LayerNormBackward::Write::kAccumulate ? d_x[c] + d : d;
  }
}

}  // namespace

template <>
void layer_norm_forward_on<DeviceType::kCpu>(const LayerNormForward& args, const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t r = 0; r < args.x.rows; ++r) forward_row(args, r);
}

template <>
void layer_norm_backward_on<DeviceType::kCpu>(const LayerNormBackward& args, const Stream& stream) {
  const std::int64_t dim = args.x.cols;
  const std::int64_t num_chunks = num_row_chunks(args.x.rows);
  auto partials = Buffer<float>::zeros(num_chunks * 2 * dim, stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    float* d_gamma = partials.data() + chunk * 2 * dim;
    const std::int64_t end = std::min(args.x.rows, (chunk + 1) * kRowChunk);
    for (std::int64_t r = chunk * kRowChunk; r < end; ++r) {
      backward_row(args, r, d_gamma, d_gamma + dim);
    }
  }
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const float* partial = partials.data() + chunk * 2 * dim;
    for (std::int64_t c = 0; c < dim; ++c) {
      args.d_gamma[c] += partial[c];
      args.d_beta[c] += partial[dim + c];
    }
  }
}

}  // namespace serrate
