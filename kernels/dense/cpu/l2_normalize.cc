#include "serrate/kernels/l2_normalize.h"

#include <algorithm>
#include <cmath>

#include "kernels/shapes.h"
#include "kernels/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/l2_normalize.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

void l2_normalize_forward_rows(MatrixView<const float> x, MatrixView<float> y,
                               std::span<float> norms, RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    norms[r] = std::sqrt(dot(x.row(r), x.row(r), x.cols));
    scale_row(1 / std::max(norms[r], kL2NormalizeEps), x.row(r), y.row(r), x.cols);
  }
}

// d_x = (d_y - y (y . d_y)) / |x|. Below eps y is x / eps: no part of it comes from the norm.
void l2_normalize_backward_rows(MatrixView<const float> y, std::span<const float> norms,
                                MatrixView<const float> d_y, MatrixView<float> d_x, RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    const bool is_normalized = norms[r] > kL2NormalizeEps;
    const FloatVector along =
        hn::Set(kFloats, is_normalized ? dot(y.row(r), d_y.row(r), y.cols) : 0);
    const FloatVector scale = hn::Set(kFloats, 1 / std::max(norms[r], kL2NormalizeEps));
    for_each_vector(y.cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector across =
          hn::NegMulAdd(along, lanes.load(y.row(r) + c), lanes.load(d_y.row(r) + c));
      lanes.store(hn::Mul(scale, across), d_x.row(r) + c);
    });
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(l2_normalize_forward_rows);
HWY_EXPORT(l2_normalize_backward_rows);

template <>
void l2_normalize_forward_on<DeviceType::kCpu>(DeviceMatrix<const float> x_rows,
                                               DeviceMatrix<float> y_rows,
                                               DeviceSpan<float> row_norms, const Stream& stream) {
  const auto x = host_view(x_rows, stream);
  const auto y = host_view(y_rows, stream);
  const auto norms = host_view(row_norms, stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(x.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(l2_normalize_forward_rows)(x, y, norms, rows_of_chunk(chunk, x.rows));
  }
}

template <>
void l2_normalize_backward_on<DeviceType::kCpu>(DeviceMatrix<const float> y_rows,
                                                DeviceSpan<const float> row_norms,
                                                DeviceMatrix<const float> d_y_rows,
                                                DeviceMatrix<float> d_x_rows,
                                                const Stream& stream) {
  const auto y = host_view(y_rows, stream), d_y = host_view(d_y_rows, stream);
  const auto norms = host_view(row_norms, stream);
  const auto d_x = host_view(d_x_rows, stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(y.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(l2_normalize_backward_rows)(y, norms, d_y, d_x,
                                                     rows_of_chunk(chunk, y.rows));
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
