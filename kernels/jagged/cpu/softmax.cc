// Over rows, a task is a block of columns: columns are lanes, so that no sum goes across lanes and
// a column's bits do not depend on its neighbours. Over columns, a task is a block of rows.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numbers>
#include <span>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd/targets.h"
#include "serrate/kernels/jagged_softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged/cpu/softmax.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/math-inl.h"
#include "kernels/simd/output-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

HWY_INLINE FloatVector minus_infinity() {
  return hn::Set(kFloats, -std::numeric_limits<float>::infinity());
}

// The maximum to subtract: 0 where all is -infinity.
HWY_INLINE FloatVector finite_shift(FloatVector max) {
  return hn::IfThenZeroElse(hn::Eq(max, minus_infinity()), max);
}

HWY_INLINE FloatVector inverse_or_zero(FloatVector sum) {
  return hn::IfThenZeroElse(hn::Eq(sum, hn::Zero(kFloats)), hn::Div(hn::Set(kFloats, 1), sum));
}

// e^x where x is at most 0, as differences to a maximum are: within 1.5 ulp and |x| 2^-23 of it.
HWY_INLINE FloatVector exp_of_difference(FloatVector x) {
  return Exp2(kFloats, hn::Mul(x, hn::Set(kFloats, std::numbers::log2e_v<float>)));
}

// n neighbouring vectors of a row; the last are the lanes of Last.
template <int n, typename Last>
struct VectorGroup {
  std::int64_t column;
  Last last;

  HWY_INLINE FloatVector load(const float* row, int v) const {
    const float* from = row + column + v * kStep;
    return v + 1 < n ? hn::LoadU(kFloats, from) : last.load(from);
  }
  HWY_INLINE void store(FloatVector value, float* row, int v) const {
    float* to = row + column + v * kStep;
    v + 1 < n ? hn::StoreU(value, kFloats, to) : last.store(value, to);
  }
};

template <typename Last, typename F>
HWY_INLINE void with_group(std::int64_t num_vectors, std::int64_t column, const Last& last,
                           const F& f) {
  if (num_vectors == 1) f(VectorGroup<1, Last>{column, last});
  if (num_vectors == 2) f(VectorGroup<2, Last>{column, last});
  if (num_vectors == 3) f(VectorGroup<3, Last>{column, last});
  if (num_vectors == 4) f(VectorGroup<4, Last>{column, last});
}

// f(group) for groups that cover the columns [begin, end).
template <typename F>
HWY_INLINE void for_each_group(std::int64_t begin, std::int64_t end, const F& f) {
  for (std::int64_t c = begin; c < end; c += 4 * kStep) {
    const std::int64_t num_vectors = std::min<std::int64_t>((end - c + kStep - 1) / kStep, 4);
    const std::int64_t in_last = end - c - (num_vectors - 1) * kStep;
    if (in_last >= kStep) {
      with_group(num_vectors, c, WholeVector(), f);
    } else {
      with_group(num_vectors, c, PartVector(in_last), f);
    }
  }
}

// Views by value: what is stored through them might otherwise change them, for all that the
// compiler knows.
template <int n, typename Last>
void softmax_over_rows(MatrixView<const float> x, MatrixView<float> z, VectorGroup<n, Last> group) {
  FloatVector shift[n], sum[n];
  for (int v = 0; v < n; ++v) shift[v] = minus_infinity();
  for (std::int64_t r = 0; r < x.rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) shift[v] = hn::Max(shift[v], group.load(x.row(r), v));
  }
  for (int v = 0; v < n; ++v) {
    shift[v] = finite_shift(shift[v]);
    sum[v] = hn::Zero(kFloats);
  }
  for (std::int64_t r = 0; r < x.rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) {
      const FloatVector e = exp_of_difference(hn::Sub(group.load(x.row(r), v), shift[v]));
      __builtin_prefetch(x.row(r + x.rows) + group.column + v * kStep);  // the next sample
      sum[v] = hn::Add(sum[v], e);
      group.store(e, z.row(r), v);
    }
  }
  for (int v = 0; v < n; ++v) sum[v] = inverse_or_zero(sum[v]);
  for (std::int64_t r = 0; r < x.rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) {
      group.store(hn::Mul(sum[v], group.load(z.row(r), v)), z.row(r), v);
    }
  }
}

template <int n, typename Last>
void gradient_over_rows(MatrixView<const float> z, MatrixView<const float> d_z,
                        MatrixView<float> d_x, VectorGroup<n, Last> group) {
  FloatVector sum[n];
  for (int v = 0; v < n; ++v) sum[v] = hn::Zero(kFloats);
  for (std::int64_t r = 0; r < z.rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) {
      sum[v] = hn::MulAdd(group.load(z.row(r), v), group.load(d_z.row(r), v), sum[v]);
    }
  }
  for (std::int64_t r = 0; r < z.rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < n; ++v) {
      const FloatVector centered = hn::Sub(group.load(d_z.row(r), v), sum[v]);
      __builtin_prefetch(z.row(r + z.rows) + group.column + v * kStep);  // the next sample
      __builtin_prefetch(d_z.row(r + z.rows) + group.column + v * kStep);
      group.store(hn::Mul(group.load(z.row(r), v), centered), d_x.row(r), v);
    }
  }
}

// Softmax over lines: rows of a sample, or a column that is contiguous. Several go through each
// pass before the next, so that one's sum across lanes does not hold up another's; between passes
// their exponentials stay in the L1 cache.
class SoftmaxOfLines {
 public:
  void add(const float* x, std::int64_t size, float* z) {
    const std::int64_t room = (size + kStep - 1) / kStep * kStep;
    if (num_lines_ == kMaxLines || used_ + room > kRoom) finish();
    if (room > kRoom) {
      lines_[num_lines_++] = {x, z, z, size};
    } else {
      lines_[num_lines_++] = {x, exponentials_ + used_, z, size};
      used_ += room;
    }
  }
  void finish() {
    for (std::int64_t i = 0; i < num_lines_; ++i) find_shift(lines_[i]);
    for (std::int64_t i = 0; i < num_lines_; ++i) exponentiate(lines_[i]);
    for (std::int64_t i = 0; i < num_lines_; ++i) divide(lines_[i]);
    num_lines_ = used_ = 0;
  }

 private:
  struct Line {
    const float* x;
    float* e;
    float* z;
    std::int64_t size;
    float shift = 0, factor = 0;
  };
  static constexpr std::int64_t kMaxLines = 8, kRoom = 2048;

  static HWY_INLINE void find_shift(Line& line) {
    FloatVector max = minus_infinity();
    for_each_vector(line.size, [&](auto lanes, std::int64_t c) HWY_ATTR {
      max = hn::Max(max, lanes.select(lanes.load(line.x + c), minus_infinity()));
    });
    line.shift = hn::GetLane(finite_shift(hn::MaxOfLanes(kFloats, max)));
  }
  static HWY_INLINE void exponentiate(Line& line) {
    const FloatVector shift = hn::Set(kFloats, line.shift);
    FloatVector sum = hn::Zero(kFloats);
    const float* const x = line.x;
    float *const to = line.e, *const z = line.z;
    for_each_vector(line.size, [&](auto lanes, std::int64_t c) HWY_ATTR {
      const FloatVector e = exp_of_difference(hn::Sub(lanes.load(x + c), shift));
      __builtin_prefetch(x + c + kAhead);
      __builtin_prefetch(z + c + kAhead, 1);
      sum = hn::Add(sum, lanes.select(e, hn::Zero(kFloats)));
      lanes.store(e, to + c);
    });
    line.factor = hn::GetLane(inverse_or_zero(hn::SumOfLanes(kFloats, sum)));
  }
  static HWY_INLINE void divide(const Line& line) {
    scale_row(line.factor, line.e, line.z, line.size);
  }

  Line lines_[kMaxLines];
  std::int64_t num_lines_ = 0, used_ = 0;
  alignas(64) float exponentials_[kRoom];
};

void gradient_over_columns(const float* z, const float* d_z, std::int64_t cols, float* d_x) {
  const FloatVector sum = hn::Set(kFloats, dot(z, d_z, cols));
  for_each_vector(cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
    const FloatVector centered = hn::Sub(lanes.load(d_z + c), sum);
    lanes.store(hn::Mul(lanes.load(z + c), centered), d_x + c);
  });
}

// A column that is contiguous is worked on as a row: its numbers then fill vectors.
template <typename... Views>
bool is_flat_column(SoftmaxAxis axis, const Views&... views) {
  return axis == SoftmaxAxis::kRows && ((views.cols == 1 && views.stride == 1) && ...);
}

void softmax_tasks(SoftmaxAxis axis, const HostBatch<const float>& all_x,
                   const HostBatch<float>& all_z, std::span<const SampleTask> tasks) {
  SoftmaxOfLines lines;
  for (const auto& [sample, begin, end] : tasks) {
    const MatrixView<const float> x = all_x.sample(sample);
    const MatrixView<float> z = all_z.sample(sample);
    if (is_flat_column(axis, x, z)) {
      lines.add(x.data, x.rows, z.data);
    } else if (axis == SoftmaxAxis::kRows) {
      for_each_group(begin, end, [&](const auto& group) { softmax_over_rows(x, z, group); });
    } else {
      for (std::int64_t r = begin; r < end; ++r) lines.add(x.row(r), x.cols, z.row(r));
    }
  }
  lines.finish();
}

void gradient_tasks(SoftmaxAxis axis, const HostBatch<const float>& all_z,
                    const HostBatch<const float>& all_d_z, const HostBatch<float>& all_d_x,
                    std::span<const SampleTask> tasks) {
  for (const auto& [sample, begin, end] : tasks) {
    const MatrixView<const float> z = all_z.sample(sample), d_z = all_d_z.sample(sample);
    const MatrixView<float> d_x = all_d_x.sample(sample);
    if (is_flat_column(axis, z, d_z, d_x)) {
      gradient_over_columns(z.data, d_z.data, z.rows, d_x.data);
    } else if (axis == SoftmaxAxis::kRows) {
      for_each_group(begin, end,
                     [&](const auto& group) { gradient_over_rows(z, d_z, d_x, group); });
    } else {
      for (std::int64_t r = begin; r < end; ++r) {
        gradient_over_columns(z.row(r), d_z.row(r), z.cols, d_x.row(r));
      }
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(softmax_tasks);
HWY_EXPORT(gradient_tasks);

namespace {

// f(tasks) for some blocks of the columns (rows) of samples where the softmax is over rows
// (columns), at a time.
template <typename F>
void for_each_block(SoftmaxAxis axis, const HostBatch<const float>& batch, const Stream& stream,
                    const F& f) {
  constexpr std::int64_t kBlock = 64;
  const auto tasks = longest_first(
      batch.batch_size, kBlock, stream.num_threads(),
      [&](std::int64_t b) {
        const MatrixView<const float> x = batch.sample(b);
        return axis == SoftmaxAxis::kRows ? x.cols : x.rows;
      },
      [&](std::int64_t b) {
        const MatrixView<const float> x = batch.sample(b);
        return x.rows * x.cols;
      });
  constexpr std::size_t kTogether = 16;
#pragma omp parallel for schedule(dynamic) num_threads(stream.num_threads())
  for (std::size_t t = 0; t < tasks.size(); t += kTogether) {
    f(std::span(tasks).subspan(t, std::min(kTogether, tasks.size() - t)));
  }
}

constexpr auto kShapes = "jagged_softmax: all operands must have the same shape";

}  // namespace

template <>
void jagged_softmax_forward_on<DeviceType::kCpu>(const JaggedSoftmax& args, const Stream& stream) {
  const HostBatch<const float> x = host_view(args.x, stream);
  const HostBatch<float> z = host_view(args.z, stream);
  check_offsets(x, "x of jagged_softmax");
  check_offsets(z, "z of jagged_softmax");
  check_same_shapes(x, z, kShapes);
  for_each_block(args.axis, x, stream, [&](std::span<const SampleTask> tasks) {
    HWY_DYNAMIC_DISPATCH(softmax_tasks)(args.axis, x, z, tasks);
  });
}

template <>
void jagged_softmax_backward_on<DeviceType::kCpu>(const JaggedSoftmaxBackward& args,
                                                  const Stream& stream) {
  const HostBatch<const float> z = host_view(args.z, stream), d_z = host_view(args.d_z, stream);
  const HostBatch<float> d_x = host_view(args.d_x, stream);
  check_offsets(z, "z of jagged_softmax");
  check_offsets(d_z, "d_z of jagged_softmax");
  check_offsets(d_x, "d_x of jagged_softmax");
  check_same_shapes(z, d_z, kShapes);
  check_same_shapes(z, d_x, kShapes);
  for_each_block(args.axis, z, stream, [&](std::span<const SampleTask> tasks) {
    HWY_DYNAMIC_DISPATCH(gradient_tasks)(args.axis, z, d_z, d_x, tasks);
  });
}

}  // namespace serrate
#endif  // HWY_ONCE
