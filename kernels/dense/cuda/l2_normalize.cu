// A row is read once, its norm taken and its quotient written by one group of threads.
#include "kernels/dense/cuda/row_group.cuh"
#include "serrate/kernels/l2_normalize.h"

namespace serrate {
namespace {

constexpr std::int64_t kMostBlocksOfRows = 4096;

template <int kFours, Access kAccess>
__global__ void __launch_bounds__(kGroupThreads)
    l2_normalize_rows(Rows<const float> x, Rows<float> y, float* norms, std::int64_t num_rows,
                      std::int64_t num_cols) {
  using Part = RowPart<kFours, kAccess>;
  for_each_row(num_rows, num_cols, [&](std::int64_t r, std::int64_t cols) {
    const Part at = Part::load(x.row(r), cols);
    const float norm = sqrtf(sum_of_row(map_row([](float v) { return v * v; }, at)));
    if (cols == 0) return;
    if (threadIdx.x == 0) norms[r] = norm;
    const float scale = 1 / fmaxf(norm, kL2NormalizeEps);
    map_row([scale](float v) { return scale * v; }, at).store(y.row(r), cols);
  });
}

// d_x = (d_y - y (y . d_y)) / |x|. Below eps y is x / eps: no part of it comes from the norm.
template <int kFours, Access kAccess>
__global__ void __launch_bounds__(kGroupThreads)
    l2_normalize_backward_rows(Rows<const float> y, const float* norms, Rows<const float> d_y,
                               Rows<float> d_x, std::int64_t num_rows, std::int64_t num_cols) {
  using Part = RowPart<kFours, kAccess>;
  for_each_row(num_rows, num_cols, [&](std::int64_t r, std::int64_t cols) {
    const Part at = Part::load(y.row(r), cols), d = Part::load(d_y.row(r), cols);
    const float dot = sum_of_row(map_row([](float a, float b) { return a * b; }, at, d));
    if (cols == 0) return;
    const float norm = norms[r];
    const float along = norm > kL2NormalizeEps ? dot : 0;
    const float scale = 1 / fmaxf(norm, kL2NormalizeEps);
    const auto across = [=](float a, float b) { return scale * fmaf(-along, a, b); };
    map_row(across, at, d).store(d_x.row(r), cols);
  });
}

}  // namespace

template <>
void l2_normalize_forward_on<DeviceType::kCuda>(DeviceMatrix<const float> x, DeviceMatrix<float> y,
                                                DeviceSpan<float> norms, const Stream& stream) {
  if (x.rows == 0) return;
  with_row_groups(
      x.rows, x.cols, kMostBlocksOfRows,
      [&](auto fours, auto access, const GroupLaunch& shape) {
        launch(l2_normalize_rows<fours(), access()>, shape.blocks, shape.block, 0, stream,
               rows_of(x), rows_of(y), norms.device_data(), x.rows, x.cols);
      },
      x, y);
}

template <>
void l2_normalize_backward_on<DeviceType::kCuda>(DeviceMatrix<const float> y,
                                                 DeviceSpan<const float> norms,
                                                 DeviceMatrix<const float> d_y,
                                                 DeviceMatrix<float> d_x, const Stream& stream) {
  if (y.rows == 0) return;
  with_row_groups(
      y.rows, y.cols, kMostBlocksOfRows,
      [&](auto fours, auto access, const GroupLaunch& shape) {
        launch(l2_normalize_backward_rows<fours(), access()>, shape.blocks, shape.block, 0, stream,
               rows_of(y), norms.device_data(), rows_of(d_y), rows_of(d_x), y.rows, y.cols);
      },
      y, d_y, d_x);
}

}  // namespace serrate
