// Over rows, a task is a block of columns: columns are lanes, so that no sum goes across lanes and
// a column's bits do not depend on its neighbours. Over columns, a task is a block of rows.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numbers>

#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "kernels/simd_targets.h"
#include "serrate/kernels/jagged_softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/jagged_softmax_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd_math-inl.h"
#include "kernels/simd_output-inl.h"

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
      group.store(hn::Mul(group.load(z.row(r), v), centered), d_x.row(r), v);
    }
  }
}

void softmax_over_columns(const float* x, std::int64_t cols, float* z) {
  FloatVector max = minus_infinity(), sum = hn::Zero(kFloats);
  for_each_vector(cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
    max = hn::Max(max, lanes.select(lanes.load(x + c), minus_infinity()));
  });
  const FloatVector shift = finite_shift(hn::MaxOfLanes(kFloats, max));
  for_each_vector(cols, [&](auto lanes, std::int64_t c) HWY_ATTR {
    const FloatVector e = exp_of_difference(hn::Sub(lanes.load(x + c), shift));
    sum = hn::Add(sum, lanes.select(e, hn::Zero(kFloats)));
    lanes.store(e, z + c);
  });
  const FloatVector factor = inverse_or_zero(hn::SumOfLanes(kFloats, sum));
  for_each_vector(cols, [&](auto lanes, std::int64_t c)
                            HWY_ATTR { lanes.store(hn::Mul(factor, lanes.load(z + c)), z + c); });
}

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

void softmax_task(SoftmaxAxis axis, const MatrixView<const float>& x, const MatrixView<float>& z,
                  std::int64_t begin, std::int64_t end) {
  if (is_flat_column(axis, x, z)) {
    softmax_over_columns(x.data, x.rows, z.data);
  } else if (axis == SoftmaxAxis::kRows) {
    for_each_group(begin, end, [&](const auto& group) { softmax_over_rows(x, z, group); });
  } else {
    for (std::int64_t r = begin; r < end; ++r) softmax_over_columns(x.row(r), x.cols, z.row(r));
  }
}

void gradient_task(SoftmaxAxis axis, const MatrixView<const float>& z,
                   const MatrixView<const float>& d_z, const MatrixView<float>& d_x,
                   std::int64_t begin, std::int64_t end) {
  if (is_flat_column(axis, z, d_z, d_x)) {
    gradient_over_columns(z.data, d_z.data, z.rows, d_x.data);
  } else if (axis == SoftmaxAxis::kRows) {
    for_each_group(begin, end, [&](const auto& group) { gradient_over_rows(z, d_z, d_x, group); });
  } else {
    for (std::int64_t r = begin; r < end; ++r) {
      gradient_over_columns(z.row(r), d_z.row(r), z.cols, d_x.row(r));
    }
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(softmax_task);
HWY_EXPORT(gradient_task);

namespace {

// f(task) for blocks of the columns (rows) of a sample where the softmax is over rows (columns).
template <typename F>
void for_each_block(SoftmaxAxis axis, const MatrixBatch<const float>& batch, const Stream& stream,
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
#pragma omp parallel for schedule(dynamic, 4) num_threads(stream.num_threads())
  for (std::int64_t t = 0; t < std::ssize(tasks); ++t) f(tasks[t]);
}

constexpr auto kShapes = "jagged_softmax: all operands must have the same shape";

}  // namespace

template <>
void jagged_softmax_forward_on<DeviceType::kCpu>(const JaggedSoftmax& args, const Stream& stream) {
  check_offsets(args.x, "x of jagged_softmax");
  check_offsets(args.z, "z of jagged_softmax");
  check_same_shapes(args.x, args.z, kShapes);
  for_each_block(args.axis, args.x, stream, [&](const SampleTask& task) {
    HWY_DYNAMIC_DISPATCH(softmax_task)
    (args.axis, args.x.sample(task.sample), args.z.sample(task.sample), task.begin, task.end);
  });
}

template <>
void jagged_softmax_backward_on<DeviceType::kCpu>(const JaggedSoftmaxBackward& args,
                                                  const Stream& stream) {
  check_offsets(args.z, "z of jagged_softmax");
  check_offsets(args.d_z, "d_z of jagged_softmax");
  check_offsets(args.d_x, "d_x of jagged_softmax");
  check_same_shapes(args.z, args.d_z, kShapes);
  check_same_shapes(args.z, args.d_x, kShapes);
  for_each_block(args.axis, args.z, stream, [&](const SampleTask& task) {
    HWY_DYNAMIC_DISPATCH(gradient_task)
    (args.axis, args.z.sample(task.sample), args.d_z.sample(task.sample),
     args.d_x.sample(task.sample), task.begin, task.end);
  });
}

}  // namespace serrate
#endif  // HWY_ONCE
