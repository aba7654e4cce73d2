// Each value is read and written once; the gradient of a shared y is a sum over the samples in
// their order, by parts of a fixed number of them.
#include "kernels/cuda/parts.cuh"
#include "kernels/jagged/cuda/runs.cuh"
#include "serrate/buffer.h"
#include "serrate/kernels/jagged_elementwise.h"

namespace serrate {
namespace {

// x op y where y is; else x for a sum and 0 for a product.
template <int kWidth>
__device__ RowVector<kWidth> combine(Elementwise op, RowVector<kWidth> x,
                                     const Sample<const float>& y, std::int64_t r, std::int64_t c) {
  if (r >= y.rows || c >= y.cols) return op == Elementwise::kAdd ? x : RowVector<kWidth>{};
  const auto by = load<kWidth>(y.row(r) + c);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    x.value[k] = op == Elementwise::kAdd ? x.value[k] + by.value[k] : x.value[k] * by.value[k];
  }
  return x;
}

template <int kWidth>
struct Combine {
  Elementwise op;
  Samples<const float> x, y;
  Samples<float> z;

  __device__ void operator()(const Run& run) const {
    const Sample<const float> left = x[run.sample], right = y[run.sample];
    const Sample<float> to = z[run.sample];
    for_each_of_run<kWidth>(run, to.cols, [&](std::int64_t r, std::int64_t c) {
      store(combine(op, load<kWidth>(left.row(r) + c), right, r, c), to.row(r) + c);
    });
  }
};

// Part p is the sum over samples [p * samples_of_part, (p + 1) * samples_of_part) of what they add
// to d_y. Where every sample has a y, each is a part.
template <int kWidth>
struct GradientParts {
  Elementwise op;
  Samples<const float> x, d_z;
  Samples<float> parts;
  std::int64_t batch_size, samples_of_part;

  __device__ void operator()(const Run& run) const {
    const Sample<float> to = parts[run.sample];
    const std::int64_t begin = run.sample * samples_of_part;
    const std::int64_t end = std::min(begin + samples_of_part, batch_size);
    for_each_of_run<kWidth>(run, to.cols, [&](std::int64_t r, std::int64_t c) {
      RowVector<kWidth> sum{};
#pragma unroll 4
      for (std::int64_t b = begin; b < end; ++b) add(b, r, c, sum);
      store(sum, to.row(r) + c);
    });
  }

  __device__ void add(std::int64_t b, std::int64_t r, std::int64_t c,
                      RowVector<kWidth>& sum) const {
    const Sample<const float> from = d_z[b];
    if (r >= from.rows || c >= from.cols) return;
    const auto d = load<kWidth>(from.row(r) + c);
    if (op == Elementwise::kAdd) return multiply_add(1.0f, d, sum);
    const auto by = load<kWidth>(x[b].row(r) + c);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) sum.value[k] = fmaf(d.value[k], by.value[k], sum.value[k]);
  }
};

void write_d_y(const JaggedElementwiseBackward& args, const MatrixBatch<float>& parts,
               std::int64_t samples_of_part, const Stream& stream) {
  const auto x = args.op == Elementwise::kMultiply ? args.x : args.d_z;
  with_width(
      [&](auto width) {
        const GradientParts<width()> gradient{
            args.op,           samples_of(x),       samples_of(args.d_z),
            samples_of(parts), args.d_y.batch_size, samples_of_part};
        launch_over_rows(gradient, parts, width, stream);
      },
      x, args.d_z, parts);
}

// The parts depend on sizes that the host knows alone: enough of them to fill a device.
void write_shared_d_y(const JaggedElementwiseBackward& args, const Stream& stream) {
  constexpr std::int64_t kFewestSamples = 64, kWantedValues = 1 << 18;
  const std::int64_t batch_size = args.d_y.batch_size, rows = args.d_y.rows, cols = args.d_y.cols;
  if (cols == 0) return;
  const std::int64_t wanted = std::max<std::int64_t>(kWantedValues / (rows * cols), 1);
  const std::int64_t samples_of_part = std::max(kFewestSamples, (batch_size + wanted - 1) / wanted);
  const std::int64_t num_parts = (batch_size + samples_of_part - 1) / samples_of_part;
  const DeviceMatrix<float> d_y(args.d_y.values.device_data(), rows, cols, args.d_y.stride);
  if (num_parts <= 1) {
    return write_d_y(args, MatrixBatch<float>::dense(d_y, 1), samples_of_part, stream);
  }
  Buffer<float> buffer(num_parts * rows * cols, stream);
  const DeviceMatrix<float> parts(buffer.device_data(), num_parts * rows, cols);
  write_d_y(args, MatrixBatch<float>::dense(parts, num_parts), samples_of_part, stream);
  launch_add_parts(parts, d_y, stream);
}

}  // namespace

template <>
void jagged_elementwise_forward_on<DeviceType::kCuda>(const JaggedElementwise& args,
                                                      const Stream& stream) {
  with_width(
      [&](auto width) {
        const Combine<width()> combine{args.op, samples_of(args.x), samples_of(args.y),
                                       samples_of(args.z)};
        launch_over_rows(combine, args.z, width, stream);
      },
      args.x, args.y, args.z);
}

template <>
void jagged_elementwise_backward_on<DeviceType::kCuda>(const JaggedElementwiseBackward& args,
                                                       const Stream& stream) {
  if (args.d_y.is_shared()) {
    write_shared_d_y(args, stream);
  } else {
    write_d_y(args, args.d_y, 1, stream);
  }
  if (!args.d_x.has_data()) return;
  const auto nothing = MatrixBatch<const float>::dense({nullptr, 0, 0}, args.d_x.batch_size);
  const bool is_product = args.op == Elementwise::kMultiply;
  jagged_elementwise_forward_on<DeviceType::kCuda>(
      {args.op, args.d_z, is_product ? args.y : nothing, args.d_x}, stream);
}

}  // namespace serrate
