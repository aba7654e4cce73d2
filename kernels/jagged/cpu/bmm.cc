// A task is a block of rows of one sample's product. Its columns go by in panels, the depth in
// chunks, so that the part of y in use stays in the L1 cache; every element is one sum in the order
// of the depth, whatever the blocks.
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "kernels/jagged/cpu/bmm_blocks.h"
#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged/cpu/bmm.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/gemm-inl.h"
#include "kernels/simd/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// Rows [p, p + depth) and columns [column, column + width) of the right operand, in whole vectors:
// where they are, or packed where that is not so, or where rows so far apart that they fall on the
// same cache lines would be read often.
Tile<const float> right_panel(const HostBmm& args, const MatrixView<const float>& y, std::int64_t p,
                              std::int64_t depth, std::int64_t column, std::int64_t width,
                              std::int64_t rows, BmmScratch& scratch) {
  const Tile<float> packed{scratch.y, round_up_to_lanes(width)};
  if (args.transposed == Transposed::kRight) {
    transpose_rows({y.row(column) + p, y.stride}, width, depth, 1, packed);
    return packed;
  }
  const Tile<const float> panel{y.row(p) + column, y.stride};
  const bool is_read_often = rows > 4 * kBlockRows && y.stride > 2 * kBmmPanel;
  if (width % kLanes == 0 && !is_read_often) return panel;
  copy_rows(panel, depth, width, packed);
  for (std::int64_t r = 0; r < depth; ++r) {
    std::fill(packed.row(r) + width, packed.row(r + 1), 0.0f);
  }
  return packed;
}

template <Left kLeft>
void multiply_rows(const HostBmm& args, const SampleTask& task, BmmScratch& scratch) {
  const MatrixView<const float> x = args.x.sample(task.sample), y = args.y.sample(task.sample);
  const auto z = args.z.sample(task.sample).middle_rows(task.begin, task.end);
  const std::int64_t depth = depth_of(args.transposed, x);
  for (std::int64_t column = 0; column < z.cols; column += kBmmPanel) {
    const std::int64_t width = std::min(kBmmPanel, z.cols - column);
    const std::int64_t padded_width = round_up_to_lanes(width);
    const Tile<float> to{z.data + column, z.stride};
    const Tile<float> sums = width == padded_width ? to : Tile<float>{scratch.z, padded_width};
    std::int64_t p = 0;
    do {
      const std::int64_t chunk = std::min(kBmmDepth, depth - p);
      const Tile<const float> left = kLeft == Left::kAsIs
                                         ? Tile<const float>{x.row(task.begin) + p, x.stride}
                                         : Tile<const float>{x.row(p) + task.begin, x.stride};
      multiply<kLeft>(z.rows, padded_width, left,
                      right_panel(args, y, p, chunk, column, width, z.rows, scratch), sums,
                      p > 0 ? Into::kAdd : Into::kOverwrite,
                      [&](std::int64_t, std::int64_t) { return Extent{0, 0, chunk}; });
      p += chunk;
    } while (p < depth);
    if (sums.data != to.data) copy_rows(sums, z.rows, width, to);
  }
}

void multiply_task(const HostBmm& args, const SampleTask& task, BmmScratch& scratch) {
  if (args.transposed == Transposed::kLeft) {
    multiply_rows<Left::kTransposed>(args, task, scratch);
  } else {
    multiply_rows<Left::kAsIs>(args, task, scratch);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(multiply_task);

template <>
void jagged_bmm_forward_on<DeviceType::kCpu>(const JaggedBmm& bmm, const Stream& stream) {
  const HostBmm args{host_view(bmm.x, stream), host_view(bmm.y, stream), host_view(bmm.z, stream),
                     bmm.transposed};
  check_offsets(args.x, "x of jagged_bmm");
  check_offsets(args.y, "y of jagged_bmm");
  check_offsets(args.z, "z of jagged_bmm");
  check_samples(args.z.batch_size, "jagged_bmm: rows and columns of x, y and z must fit",
                [&](std::int64_t b) {
                  MatrixView<const float> x = args.x.sample(b), y = args.y.sample(b);
                  const MatrixView<const float> z = args.z.sample(b);
                  if (args.transposed == Transposed::kLeft) std::swap(x.rows, x.cols);
                  if (args.transposed == Transposed::kRight) std::swap(y.rows, y.cols);
                  return x.cols == y.rows && z.rows == x.rows && z.cols == y.cols;
                });
  const auto tasks = longest_first(
      args.z.batch_size, kBmmRows, stream.num_threads(),
      [&](std::int64_t b) { return args.z.sample(b).rows; },
      [&](std::int64_t b) {
        const MatrixView<const float> z = args.z.sample(b);
        return z.rows * z.cols * (depth_of(args.transposed, args.x.sample(b)) + 1);
      });
  Buffer<BmmScratch> scratch(stream.num_threads(), stream);
  const std::span<BmmScratch> blocks = host_view(scratch.span(), stream);
#pragma omp parallel for schedule(dynamic, 4) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < std::ssize(tasks); ++t) {
    HWY_DYNAMIC_DISPATCH(multiply_task)(args, tasks[t], blocks[omp_get_thread_num()]);
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
