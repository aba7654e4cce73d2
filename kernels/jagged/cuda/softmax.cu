// A line is what a softmax is over. A row has up to a warp, as many lanes as it has columns;
// columns lie side by side, and each has a column of a block's threads. A thread holds its first
// values of a line in registers; what is behind them it reads again, three times forward and twice
// backward.
#include <bit>
#include <limits>

#include "kernels/jagged/cuda/runs.cuh"
#include "serrate/kernels/jagged_softmax.h"

namespace serrate {
namespace {

constexpr int kThreads = 256;

// Value i of a line is data[i * step].
template <typename T>
struct Line {
  T* data;
  std::int64_t step;
  __device__ T& operator[](std::int64_t i) const { return data[i * step]; }
};

template <SoftmaxAxis kAxis, typename T>
__device__ Line<T> line_of(const Sample<T>& sample, std::int64_t line) {
  if (kAxis == SoftmaxAxis::kRows) return {sample.data + line, sample.stride};
  return {sample.row(line), 1};
}

// Calls f(line, size) for the lines of a run of a rows x cols sample, as often for all threads of a
// warp or, where the lines are columns, of the block: lines behind the last have no values.
template <SoftmaxAxis kAxis, typename F>
__device__ void for_each_line(const Run& run, std::int64_t rows, std::int64_t cols, F f) {
  if constexpr (kAxis == SoftmaxAxis::kRows) {
    const std::int64_t line = run.begin + threadIdx.x;
    f(line, line < run.end ? rows : 0);
  } else {
    for (std::int64_t first = run.begin; first < run.end; first += blockDim.y) {
      const std::int64_t line = first + threadIdx.y;
      f(line, line < run.end ? cols : 0);
    }
  }
}

// This thread's values of lines of one size: every step-th, of which it holds the first kHeld. More
// would leave fewer warps on a multiprocessor than its memory needs, as most lines are short.
template <SoftmaxAxis kAxis, int kLines>
struct ValuesOfThread {
  static constexpr int kHeld = kAxis == SoftmaxAxis::kRows ? 8 : 4;  // 64 rows, 128 columns
  Line<const float> lines[kLines];
  std::int64_t size;
  unsigned first = kAxis == SoftmaxAxis::kRows ? threadIdx.y : threadIdx.x;
  unsigned step = kAxis == SoftmaxAxis::kRows ? blockDim.y : blockDim.x;
  float held[kHeld][kLines];

  template <typename... Lines>
  __device__ explicit ValuesOfThread(std::int64_t num_values, const Lines&... of)
      : lines{of...}, size(num_values) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (first + k * step < size) read(first + k * step, held[k]);
    }
  }
  __device__ void read(std::int64_t i, float (&values)[kLines]) const {
#pragma unroll
    for (int line = 0; line < kLines; ++line) values[line] = lines[line][i];
  }
  // Calls f(i, values i of the lines).
  template <typename F>
  __device__ void for_each(F f) const {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (first + k * step < size) f(first + k * step, held[k]);
    }
    for (std::int64_t i = first + kHeld * step; i < size; i += step) {
      float values[kLines];
      read(i, values);
      f(i, values);
    }
  }
};

// f over the values of all threads of a line, in an order that the number of threads sets.
template <SoftmaxAxis kAxis, typename F>
__device__ float reduce_line(float value, F f) {
  if constexpr (kAxis == SoftmaxAxis::kColumns) {
    for (unsigned lanes = blockDim.x / 2; lanes > 0; lanes /= 2) {
      value = f(value, __shfl_xor_sync(0xffffffff, value, static_cast<int>(lanes)));
    }
    return value;
  } else {
    __shared__ float values[kThreads];
    float* const mine = values + threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();  // what was there before has been read
    *mine = value;
    for (unsigned rows = blockDim.y / 2; rows > 0; rows /= 2) {
      __syncthreads();
      if (threadIdx.y < rows) *mine = f(*mine, mine[rows * blockDim.x]);
    }
    __syncthreads();
    return values[threadIdx.x];
  }
}

__device__ float add(float a, float b) {
  return a + b;
}

template <SoftmaxAxis kAxis>
struct Softmax {
  Samples<const float> x;
  Samples<float> z;

  __device__ void operator()(const Run& run) const {
    const Sample<const float> all = x[run.sample];
    for_each_line<kAxis>(run, all.rows, all.cols, [&](std::int64_t line, std::int64_t size) {
      const ValuesOfThread<kAxis, 1> from(size, line_of<kAxis>(all, line));
      const Line<float> to = line_of<kAxis>(z[run.sample], line);
      float max = -std::numeric_limits<float>::infinity(), sum = 0;
      from.for_each([&](std::int64_t, auto& x_i) { max = fmaxf(max, x_i[0]); });
      max = reduce_line<kAxis>(max, fmaxf);
      if (max == -std::numeric_limits<float>::infinity()) max = 0;
      from.for_each([&](std::int64_t, auto& x_i) { sum += expf(x_i[0] - max); });
      sum = reduce_line<kAxis>(sum, add);
      const float factor = sum == 0 ? 0 : 1 / sum;
      from.for_each([&](std::int64_t i, auto& x_i) { to[i] = factor * expf(x_i[0] - max); });
    });
  }
};

template <SoftmaxAxis kAxis>
struct SoftmaxGradient {
  Samples<const float> z, d_z;
  Samples<float> d_x;

  __device__ void operator()(const Run& run) const {
    const Sample<const float> all = z[run.sample];
    for_each_line<kAxis>(run, all.rows, all.cols, [&](std::int64_t line, std::int64_t size) {
      const ValuesOfThread<kAxis, 2> from(size, line_of<kAxis>(all, line),
                                          line_of<kAxis>(d_z[run.sample], line));
      const Line<float> to = line_of<kAxis>(d_x[run.sample], line);
      float sum = 0;
      from.for_each([&](std::int64_t, auto& z_i) { sum = fmaf(z_i[0], z_i[1], sum); });
      sum = reduce_line<kAxis>(sum, add);
      from.for_each([&](std::int64_t i, auto& z_i) { to[i] = z_i[0] * (z_i[1] - sum); });
    });
  }
};

// For an op over the lines of `of`.
template <SoftmaxAxis kAxis, class Op, typename T>
void launch_lines(const Op& op, const MatrixBatch<T>& of, const Stream& stream) {
  if (kAxis == SoftmaxAxis::kColumns) return launch_over_rows(op, of, 1, stream);
  const dim3 block = rows_of_threads(of.col_offsets.empty() ? of.cols : kUsualColumns, 1, kThreads);
  launch_runs(op, runs_of_columns(of, std::countr_zero(block.x)), block, stream);
}

template <typename T>
bool is_flat_column(const MatrixBatch<T>& batch) {
  return batch.col_offsets.empty() && batch.cols == 1 && batch.stride == 1;
}

// Flat columns, each as a row, which is read by lanes side by side.
template <typename T>
MatrixBatch<T> as_rows(MatrixBatch<T> batch) {
  batch.cols = batch.rows;
  batch.stride = batch.sample_stride;
  batch.rows = 1;
  batch.col_offsets = batch.value_offsets = batch.row_offsets;
  batch.row_offsets = {};
  return batch;
}

}  // namespace

template <>
void jagged_softmax_forward_on<DeviceType::kCuda>(const JaggedSoftmax& args, const Stream& stream) {
  const auto x = samples_of(args.x);
  const auto z = samples_of(args.z);
  if (args.axis == SoftmaxAxis::kColumns) {
    launch_lines<SoftmaxAxis::kColumns>(Softmax<SoftmaxAxis::kColumns>{x, z}, args.z, stream);
  } else if (is_flat_column(args.x) && is_flat_column(args.z)) {
    jagged_softmax_forward_on<DeviceType::kCuda>(
        {as_rows(args.x), as_rows(args.z), SoftmaxAxis::kColumns}, stream);
  } else {
    launch_lines<SoftmaxAxis::kRows>(Softmax<SoftmaxAxis::kRows>{x, z}, args.z, stream);
  }
}

template <>
void jagged_softmax_backward_on<DeviceType::kCuda>(const JaggedSoftmaxBackward& args,
                                                   const Stream& stream) {
  const auto z = samples_of(args.z), d_z = samples_of(args.d_z);
  const auto d_x = samples_of(args.d_x);
  if (args.axis == SoftmaxAxis::kColumns) {
    launch_lines<SoftmaxAxis::kColumns>(SoftmaxGradient<SoftmaxAxis::kColumns>{z, d_z, d_x},
                                        args.d_x, stream);
  } else if (is_flat_column(args.z) && is_flat_column(args.d_z) && is_flat_column(args.d_x)) {
    jagged_softmax_backward_on<DeviceType::kCuda>(
        {as_rows(args.z), as_rows(args.d_z), as_rows(args.d_x), SoftmaxAxis::kColumns}, stream);
  } else {
    launch_lines<SoftmaxAxis::kRows>(SoftmaxGradient<SoftmaxAxis::kRows>{z, d_z, d_x}, args.d_x,
                                     stream);
  }
}

}  // namespace serrate
