#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/shapes.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/row_scores.h"

#ifndef SERRATE_KERNELS_HOST_ROW_SCORES
#define SERRATE_KERNELS_HOST_ROW_SCORES
namespace serrate {

// RowScores as the CPU reads it.
struct HostRowScores {
  MatrixView<const float> queries, rows;
  ScoreBy score_by;
  MatrixView<float> scores;
};

}  // namespace serrate
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/row_scores.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "kernels/simd/gemm-inl.h"
#include "kernels/simd/pack-inl.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// Scores of a block of rows, which are packed as columns in `packed`, [dim, rows rounded up].
void score_block(const HostRowScores& args, RowRange block, float* packed) {
  const MatrixView<const float> rows = args.rows.middle_rows(block.begin, block.end);
  const std::int64_t width = round_up_to_lanes(rows.rows);
  transpose_rows({rows.data, rows.stride}, rows.rows, rows.cols, 1, {packed, width});
  multiply<Left::kAsIs>(args.queries.rows, width, {args.queries.data, args.queries.stride},
                        {packed, width}, {args.scores.data + block.begin, args.scores.stride},
                        Into::kOverwrite,
                        [&](std::int64_t, std::int64_t) { return Extent{0, 0, rows.cols}; });
  if (args.score_by == ScoreBy::kDotProduct) return;
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    const float length = std::sqrt(dot(rows.row(r), rows.row(r), rows.cols));
    packed[r] = std::max(length, 1e-12f);
  }
  for (std::int64_t q = 0; q < args.queries.rows; ++q) {
    float* scores = args.scores.row(q) + block.begin;
    for (std::int64_t r = 0; r < rows.rows; ++r) scores[r] /= packed[r];
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(score_block);

// A block of rows stays in the L1 cache, or at least the L2, while the queries go by.
template <>
void row_scores_on<DeviceType::kCpu>(const RowScores& args, const Stream& stream) {
  constexpr std::int64_t kBlock = 128;
  const std::int64_t num_rows = args.rows.rows;
  const HostRowScores host{host_view(args.queries, stream), host_view(args.rows, stream),
                           args.score_by, host_view(args.scores, stream)};
#pragma omp parallel num_threads(stream.num_threads())
  {
    std::vector<float> packed(kBlock * std::max<std::int64_t>(args.rows.cols, 1));
#pragma omp for schedule(static)
    for (std::int64_t begin = 0; begin < num_rows; begin += kBlock) {
      HWY_DYNAMIC_DISPATCH(score_block)
      (host, {begin, std::min(num_rows, begin + kBlock)}, packed.data());
    }
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
