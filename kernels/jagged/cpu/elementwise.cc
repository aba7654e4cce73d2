#include <algorithm>
#include <cstdint>

#include "kernels/jagged/cpu/elementwise_run.h"
#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/jagged_elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/output-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// f(r, size) for the first `cols` columns of rows [begin, end) of all views; at once, as one row,
// where they lie one behind the other in all.
template <typename F, typename... Views>
HWY_INLINE void for_each_row(std::int64_t begin, std::int64_t end, std::int64_t cols, const F& f,
                             const Views&... views) {
  if (begin >= end) return;
  if (((views.stride == cols) && ...)) return f(begin, (end - begin) * cols);
  for (std::int64_t r = begin; r < end; ++r) f(r, cols);
}

// Rows [begin, end) of z = x op y; where x or y has none, x for a sum, which has x's shape, else 0.
// Views by value: what is stored through them might otherwise change them, for all that the
// compiler knows.
void combine_rows(Elementwise op, MatrixView<const float> x, MatrixView<const float> y,
                  MatrixView<float> z, std::int64_t begin, std::int64_t end, OutputPath path) {
  const std::int64_t last = std::clamp(std::min(x.rows, y.rows), begin, end);
  const std::int64_t cols = std::min({x.cols, y.cols, z.cols});
  const auto combine = [=](auto f) HWY_ATTR {
    const auto row = [=](std::int64_t r, std::int64_t size) HWY_ATTR {
      const float *a = x.row(r), *b = y.row(r);
      write_row(z.row(r), size, path, [=](auto lanes, std::int64_t c) HWY_ATTR {
        return f(lanes.load(a + c), lanes.load(b + c));
      });
      if (cols == z.cols) return;
      if (op == Elementwise::kAdd) {
        copy_values(a + cols, z.cols - cols, z.row(r) + cols, path);
      } else {
        fill_values(0, z.cols - cols, z.row(r) + cols, path);
      }
    };
    for_each_row(begin, last, cols, row, x, y, z);
  };
  if (op == Elementwise::kAdd) {
    combine([](auto a, auto b) HWY_ATTR { return hn::Add(a, b); });
    if (last < end) copy_rows(x.middle_rows(last, end), z.middle_rows(last, end), path);
  } else {
    combine([](auto a, auto b) HWY_ATTR { return hn::Mul(a, b); });
    if (last < end) fill_rows(0, z.middle_rows(last, end), path);
  }
}

void combine_run(Elementwise op, const MatrixView<const float>& x, const MatrixView<const float>& y,
                 const MatrixView<float>& z, std::int64_t begin, std::int64_t end,
                 OutputPath path) {
  combine_rows(op, x, y, z, begin, end, path);
  finish_rows(path);
}

// Rows [begin, end) of d_y += d_z or d_z x: what a sample adds.
void accumulate_rows(Elementwise op, MatrixView<const float> d_z, MatrixView<const float> x,
                     MatrixView<float> d_y, std::int64_t begin, std::int64_t end) {
  const auto accumulate = [=](auto f) HWY_ATTR {
    const auto row = [=](std::int64_t r, std::int64_t size) HWY_ATTR {
      const float *a = d_z.row(r), *b = x.row(r);
      float* sum = d_y.row(r);
      for_each_vector(size, [=](auto lanes, std::int64_t c) HWY_ATTR {
        __builtin_prefetch(a + c + kAhead);
        __builtin_prefetch(b + c + kAhead);
        lanes.store(f(lanes.load(a + c), lanes.load(b + c), lanes.load(sum + c)), sum + c);
      });
    };
    for_each_row(begin, end, std::min(d_y.cols, d_z.cols), row, d_z, x, d_y);
  };
  if (op == Elementwise::kAdd) {
    accumulate([](auto a, auto, auto sum) HWY_ATTR { return hn::Add(a, sum); });
  } else {
    accumulate([](auto a, auto b, auto sum) HWY_ATTR { return hn::MulAdd(a, b, sum); });
  }
}

void gradient_run(const GradientRun& run) {
  // As many rows as the L1 cache keeps from one gradient to the next.
  const std::int64_t block =
      std::max<std::int64_t>(2048 / std::max<std::int64_t>(run.d_z.cols, 1), 1);
  const std::int64_t both = std::clamp(run.d_z.rows, run.begin, run.end);
  const std::int64_t last = run.end == run.d_y.rows ? std::max(run.d_z.rows, both) : both;
  for (std::int64_t r = run.begin; r < last; r += block) {
    const std::int64_t block_end = std::min(r + block, last), in_y = std::min(block_end, both);
    if (run.is_shared) {
      accumulate_rows(run.op, run.d_z, run.x, run.d_y, r, in_y);
    } else if (run.op == Elementwise::kMultiply) {
      if (r < in_y) combine_rows(run.op, run.d_z, run.x, run.d_y, r, in_y, run.path_of_d_y);
    } else {
      if (r < in_y) copy_resized(run.d_z, 0, run.d_y, r, in_y, run.path_of_d_y);
    }
    if (run.d_x.data) combine_rows(run.op, run.d_z, run.y, run.d_x, r, block_end, run.path_of_d_x);
  }
  if (!run.is_shared && both < run.end) {
    fill_rows(0, run.d_y.middle_rows(both, run.end), run.path_of_d_y);
  }
  finish_rows(run.path_of_d_x);
  finish_rows(run.path_of_d_y);
}

void clear_rows(const MatrixView<float>& rows) {
  fill_rows(0, rows, OutputPath::kCached);
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(combine_run);
HWY_EXPORT(gradient_run);
HWY_EXPORT(clear_rows);

namespace {

constexpr auto kShapes = "jagged_elementwise: x and z must have the same shape";

}  // namespace

template <>
void jagged_elementwise_forward_on<DeviceType::kCpu>(const JaggedElementwise& args,
                                                     const Stream& stream) {
  const HostBatch<const float> x = host_view(args.x, stream), y = host_view(args.y, stream);
  const HostBatch<float> z = host_view(args.z, stream);
  check_offsets(x, "x of jagged_elementwise");
  check_offsets(y, "y of jagged_elementwise");
  check_offsets(z, "z of jagged_elementwise");
  check_same_shapes(x, z, kShapes);
  const OutputPath path = output_path(z);
  for_each_run(z, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(combine_run)
    (args.op, x.sample(b), y.sample(b), z.sample(b), begin, end, path);
  });
}

// A task is a run of rows of d_y, of one sample if it is dense and of all in their order if it is
// shared.
template <>
void jagged_elementwise_backward_on<DeviceType::kCpu>(const JaggedElementwiseBackward& args,
                                                      const Stream& stream) {
  const bool is_product = args.op == Elementwise::kMultiply, is_shared = args.d_y.is_shared();
  const auto nothing = MatrixBatch<const float>::dense({}, args.d_z.batch_size);
  const HostBatch<const float> d_z = host_view(args.d_z, stream);
  const HostBatch<const float> x = is_product ? host_view(args.x, stream) : d_z;
  const HostBatch<const float> y = host_view(is_product ? args.y : nothing, stream);
  const HostBatch<float> d_x = host_view(args.d_x, stream), d_y = host_view(args.d_y, stream);
  check_offsets(d_z, "d_z of jagged_elementwise");
  check_offsets(d_y, "d_y of jagged_elementwise");
  if (is_product) {
    check_offsets(x, "x of jagged_elementwise");
    check_offsets(y, "y of jagged_elementwise");
    check_same_shapes(x, d_z, kShapes);
  }
  if (d_x.data) {
    check_offsets(d_x, "d_x of jagged_elementwise");
    check_same_shapes(d_x, d_z, kShapes);
  }
  HostBatch<float> written = d_y;
  if (is_shared) written.batch_size = 1;
  const OutputPath path_of_d_x = output_path(d_z), path_of_d_y = output_path(written);
  const auto add_sample = [&](std::int64_t s, std::int64_t begin, std::int64_t end) {
    HWY_DYNAMIC_DISPATCH(gradient_run)
    ({args.op, x.sample(s), y.sample(s), d_z.sample(s),
      d_x.data ? d_x.sample(s) : MatrixView<float>(), d_y.sample(s), begin, end, is_shared,
      path_of_d_x, path_of_d_y});
  };
  for_each_run(written, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    if (!is_shared) return add_sample(b, begin, end);
    HWY_DYNAMIC_DISPATCH(clear_rows)(d_y.sample(0).middle_rows(begin, end));
    for (std::int64_t s = 0; s < d_y.batch_size; ++s) add_sample(s, begin, end);
  });
}

}  // namespace serrate
#endif  // HWY_ONCE
