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

using Words = hn::RebindToUnsigned<Floats>;  // uint32
inline constexpr Words kWords;
using WordVector = hn::Vec<Words>;

#if HWY_TARGET == HWY_SCALAR

// Vectors of one lane: the words of four columns one after the other.
constexpr std::int64_t kWordsAtOnce = 4;

HWY_INLINE void draw_words(const DropoutDraw& draw, std::uint64_t token, std::int64_t column,
                           std::uint32_t* words) {
  const auto four =
      philox4x32({static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(token >> 32),
                  static_cast<std::uint32_t>(column / 4), draw.site},
                 draw.key);
  std::copy(four.begin(), four.end(), words);
}

#else

constexpr std::int64_t kWordsAtOnce = 4 * hn::MaxLanes(kWide);

// A lane is four columns. Lanes are numbered so that interleaving the words inside 128-bit blocks,
// which is cheap, puts the columns in order.
HWY_INLINE void draw_words(const DropoutDraw& draw, std::uint64_t token, std::int64_t column,
                           std::uint32_t* words) {
  constexpr auto kBlocks = static_cast<std::int64_t>(hn::MaxLanes(kWide) / 2);
  const WideVector lane = hn::Iota(kWide, 0);
  const WideVector is_odd = hn::And(lane, hn::Set(kWide, 1));
  const WideVector lane_block =
      hn::IfThenElse(hn::Eq(is_odd, hn::Zero(kWide)), hn::ShiftRight<1>(lane),
                     hn::Add(hn::ShiftRight<1>(lane), hn::Set(kWide, kBlocks)));
  WideVector c0 = hn::Set(kWide, token), c1 = hn::Set(kWide, token >> 32);
  WideVector c2 = hn::Add(lane_block, hn::Set(kWide, static_cast<std::uint64_t>(column / 4)));
  WideVector c3 = hn::Set(kWide, draw.site);
  philox(draw, c0, c1, c2, c3);
  const auto pair = [](WideVector low, WideVector high) HWY_ATTR {
    return hn::BitCast(
        kWide, hn::OddEven(hn::BitCast(kWords, hn::ShiftLeft<32>(high)), hn::BitCast(kWords, low)));
  };
  const WideVector c01 = pair(c0, c1), c23 = pair(c2, c3);
  hn::StoreU(hn::BitCast(kWords, hn::InterleaveLower(kWide, c01, c23)), kWords, words);
  hn::StoreU(hn::BitCast(kWords, hn::InterleaveUpper(kWide, c01, c23)), kWords,
             words + kWordsAtOnce / 2);
}

#endif

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
void dropout_forward_on<DeviceType::kCpu>(const DropoutKey& key, DeviceMatrix<const float> x_rows,
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
                                           DeviceMatrix<float> d_x, const Stream& stream) {
  dropout_forward_on<DeviceType::kCpu>(key, d_y, {}, d_x, stream);
}

}  // namespace serrate
#endif  // HWY_ONCE
