#include <algorithm>
#include <array>
#include <cmath>

#include "serrate/kernels/dropout.h"
#include "serrate/random.h"

namespace serrate {
namespace {

struct Draw {
  std::array<std::uint32_t, 2> key;
  std::uint32_t threshold;  // kept are the draws that are not below
  float scale;
  std::uint32_t site;
};

Draw draw_of(const DropoutKey& key) {
  const std::uint64_t bits =
      random_bits(key.seed, RandomUse::kDropout, 0, static_cast<std::uint64_t>(key.step));
  return {{static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)},
          static_cast<std::uint32_t>(std::ldexp(key.rate, 32)),
          1 / (1 - key.rate),
          key.site};
}

void dropout_row(const Draw& draw, std::int64_t token_id, const float* x, const float* residual,
                 float* y, std::int64_t cols) {
  const auto token = static_cast<std::uint64_t>(token_id);
  for (std::int64_t begin = 0; begin < cols; begin += 4) {
    const auto bits =
        philox4x32({static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
                    static_cast<std::uint32_t>(begin / 4), draw.site},
                   draw.key);
    for (std::int64_t c = begin; c < std::min(begin + 4, cols); ++c) {
      const float kept = bits[c - begin] >= draw.threshold ? x[c] * draw.scale : 0;
      y[c] = residual ? residual[c] + kept : kept;
    }
  }
}

}  // namespace

template <>
void dropout_forward_on<DeviceType::kCpu>(const DropoutKey& key, MatrixView<const float> x,
                                          MatrixView<const float> residual, MatrixView<float> y,
                                          const Stream& stream) {
  const Draw draw = draw_of(key);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t r = 0; r < x.rows; ++r) {
    dropout_row(draw, key.rate > 0 ? key.token_ids[r] : 0, x.row(r),
                residual.data ? residual.row(r) : nullptr, y.row(r), x.cols);
  }
}

template <>
void dropout_backward_on<DeviceType::kCpu>(const DropoutKey& key, MatrixView<const float> d_y,
                                           MatrixView<float> d_x, const Stream& stream) {
  dropout_forward_on<DeviceType::kCpu>(key, d_y, {}, d_x, stream);
}

}  // namespace serrate
