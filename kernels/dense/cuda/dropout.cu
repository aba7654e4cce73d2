// Elementwise.
#include "kernels/dense/cuda/dropout.cuh"

namespace serrate {
namespace {

template <Access kAccess, typename X, typename Y>
struct DropoutOfRows {
  Dropout dropout;
  Rows<X> x;
  Rows<const float> residual;
  Rows<Y> y;
  std::int64_t cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    Four before{};
    if (residual.data) before = load_four<kAccess>(residual.row(r), c, cols);
    const Four at = load_four<kAccess>(x.row(r), c, cols);
    store_four<kAccess>(dropout.add(at, before, r, c), y.row(r), c, cols);
  }
};

template <typename X, typename Y>
void start(const DropoutKey& key, DeviceMatrix<X> x, DeviceMatrix<const float> residual,
           DeviceMatrix<Y> y, const Stream& stream) {
  with_access(
      [&](auto access) {
        const DropoutOfRows<access(), X, Y> dropout{Dropout(key), rows_of(x), rows_of(residual),
                                                    rows_of(y), x.cols};
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
