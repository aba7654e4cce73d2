// Elementwise: a thread draws the four words of its four columns at once (dropout.h).
#include "kernels/cuda/fours.cuh"
#include "kernels/dense/dropout_draw.h"

namespace serrate {
namespace {

template <Access kAccess, typename X, typename Y>
struct Dropout {
  DropoutDraw draw;
  const std::int64_t* token_ids;
  Rows<X> x;
  Rows<const float> residual;
  Rows<Y> y;
  std::int64_t cols;

  __device__ Four kept(std::int64_t r, std::int64_t c) const {
    Four four = load_four<kAccess>(x.row(r), c, cols);
    if (draw.threshold == 0) return four;
    const auto token = static_cast<std::uint64_t>(token_ids[r]);
    const auto words =
        philox4x32({static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
                    static_cast<std::uint32_t>(c / 4), draw.site},
                   draw.key);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (words[k] < draw.threshold) four.value[k] = 0;
    }
    return four;
  }
  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    Four before{};
    if (residual.data) before = load_four<kAccess>(residual.row(r), c, cols);
    const auto add = [this](float a, float b) { return fmaf(a, draw.scale, b); };
    store_four<kAccess>(map_four(add, kept(r, c), before), y.row(r), c, cols);
  }
};

template <typename X, typename Y>
void start(const DropoutKey& key, DeviceMatrix<X> x, DeviceMatrix<const float> residual,
           DeviceMatrix<Y> y, const Stream& stream) {
  with_access(
      [&](auto access) {
        const Dropout<access(), X, Y> dropout{dropout_draw(key), key.token_ids.device_data(),
                                              rows_of(x),        rows_of(residual),
                                              rows_of(y),        x.cols};
        launch_for_each_four(x.rows, x.cols, dropout, stream);
      },
      x, residual, y);
}

}  // namespace

template <>
void dropout_forward_on<DeviceType::kCuda>(const DropoutKey& key, const InputMatrix& x,
                                           DeviceMatrix<const float> residual,
                                           DeviceMatrix<float> y, const Stream& stream) {
  with_elements(x, [&](const auto& from) { start(key, from, residual, y, stream); });
}

template <>
void dropout_backward_on<DeviceType::kCuda>(const DropoutKey& key, DeviceMatrix<const float> d_y,
                                            const OutputMatrix& d_x, const Stream& stream) {
  with_elements(d_x, [&](const auto& to) { start(key, d_y, {}, to, stream); });
}

}  // namespace serrate
