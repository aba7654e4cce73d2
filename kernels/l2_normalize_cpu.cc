#include <algorithm>
#include <cmath>

#include "serrate/kernels/l2_normalize.h"

namespace serrate {
namespace {

float dot(const float* a, const float* b, std::int64_t size) {
  float sum = 0;
  for (std::int64_t i = 0; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

template <>
void l2_normalize_forward_on<DeviceType::kCpu>(MatrixView<const float> x, MatrixView<float> y,
                                               std::span<float> norms, const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t r = 0; r < x.rows; ++r) {
    norms[r] = std::sqrt(dot(x.row(r), x.row(r), x.cols));
    const float scale = 1 / std::max(norms[r], kL2NormalizeEps);
    for (std::int64_t c = 0; c < x.cols; ++c) y.row(r)[c] = scale * x.row(r)[c];
  }
}

// Below eps y is x / eps: its derivative has no part from the norm.
template <>
void l2_normalize_backward_on<DeviceType::kCpu>(MatrixView<const float> y,
                                                std::span<const float> norms,
                                                MatrixView<const float> d_y, MatrixView<float> d_x,
                                                const Stream& stream) {
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t r = 0; r < y.rows; ++r) {
    const bool is_normalized = norms[r] > kL2NormalizeEps;
    const float along = is_normalized ? dot(y.row(r), d_y.row(r), y.cols) : 0;
    const float scale = 1 / std::max(norms[r], kL2NormalizeEps);
    for (std::int64_t c = 0; c < y.cols; ++c) {
      d_x.row(r)[c] = scale * (d_y.row(r)[c] - along * y.row(r)[c]);
    }
  }
}

}  // namespace serrate
