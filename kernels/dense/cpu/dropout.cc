#include "serrate/kernels/dropout.h"

#include <algorithm>
#include <array>

#include "kernels/dense/dropout_draw.h"
#include "kernels/shapes.h"
#include "kernels/simd/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/dropout.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/philox-inl.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

using WordVector = hn::Vec<Words>;

// y = residual + x * keep * scale; residual may be null.
void dropout_row(const DropoutDraw& draw, std::int64_t token_id, const float* x,
                 const float* residual, float* y, std::int64_t cols) {
  HWY_ALIGN std::uint32_t words[kWordsAtOnce];
  const FloatVector scale = hn::Set(kFloats, draw.scale);
  const WordVector threshold = hn::Set(kWords, draw.threshold);
  for (std::int64_t begin = 0; begin < cols; begin += kWordsAtOnce) {
    draw_words(draw, static_cast<std::uint64_t>(token_id), begin, words);
    const std::int64_t size = std::min(kWordsAtOnce, cols - begin);
    for_each_vector(size, [&](auto lanes, std::int64_t i) HWY_ATTR {
      const auto is_dropped = hn::Lt(hn::LoadU(kWords, words + i), threshold);
      const FloatVector kept =
          hn::IfThenZeroElse(hn::RebindMask(kFloats, is_dropped), lanes.load(x + begin + i));
      const FloatVector before = residual ? lanes.load(residual + begin + i) : hn::Zero(kFloats);
      lanes.store(hn::MulAdd(kept, scale, before), y + begin + i);
    });
  }
}

void add_or_copy_row(const float* x, const float* residual, float* y, std::int64_t cols) {
  for_each_vector(cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
    const FloatVector before = residual ? lanes.load(residual + c) : hn::Zero(kFloats);
    lanes.store(hn::Add(lanes.load(x + c), before), y + c);
  });
}

void dropout_rows(const DropoutDraw& draw, std::span<const std::int64_t> token_ids,
                  MatrixView<const float> x, MatrixView<const float> residual, MatrixView<float> y,
                  RowRange rows) {
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    const float* residual_row = residual.data ? residual.row(r) : nullptr;
    if (draw.threshold == 0) {
      add_or_copy_row(x.row(r), residual_row, y.row(r), x.cols);
    } else {
      dropout_row(draw, token_ids[r], x.row(r), residual_row, y.row(r), x.cols);
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(dropout_rows);

template <>
void dropout_forward_on<DeviceType::kCpu>(const DropoutKey& key, const InputMatrix& x_rows,
                                          DeviceMatrix<const float> residual_rows,
                                          DeviceMatrix<float> y_rows, const Stream& stream) {
  const auto x = host_view(x_rows, stream), residual = host_view(residual_rows, stream);
  const auto y = host_view(y_rows, stream);
  const auto token_ids = host_view(key.token_ids, stream);
  const DropoutDraw draw = dropout_draw(key);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(x.rows); ++chunk) {
    HWY_DYNAMIC_DISPATCH(dropout_rows)
    (draw, token_ids, x, residual, y, rows_of_chunk(chunk, x.rows));
  }
}

template <>
void dropout_backward_on<DeviceType::kCpu>(const DropoutKey& key, DeviceMatrix<const float> d_y,
                                           const OutputMatrix& d_x, const Stream& stream) {
  dropout_forward_on<DeviceType::kCpu>(key, d_y, {}, d_x.as<float>(), stream);
}

}  // namespace serrate
#endif  // HWY_ONCE
