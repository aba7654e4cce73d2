// The products are cuBLASLt's; the gradient of the bias adds up columns in a fixed order.
#include "kernels/cuda/block_sums.cuh"
#include "kernels/cuda/matrix_product.h"
#include "kernels/dense/cuda/row_group.cuh"
#include "serrate/kernels/linear.h"

namespace serrate {
namespace {

constexpr std::int64_t kMostBlocks = 264;  // two on each of Hopper's 132 multiprocessors
static_assert(kMostBlocks <= kMostSummedBlocks);

// A group keeps the sums of its rows in registers. parts is [blocks, cols].
template <int kFours, Access kAccess, typename T>
__global__ void __launch_bounds__(kGroupThreads)
    add_column_sums(Rows<T> x, std::int64_t rows, std::int64_t cols, float* parts, float* sums,
                    unsigned* done_blocks) {
  using Part = RowPart<kFours, kAccess>;
  Part sum{};
  for_each_row(rows, cols, [&](std::int64_t r, std::int64_t size) {
    const auto add = [](float a, float b) { return a + b; };
    sum = map_row(add, sum, Part::load(x.row(r), size));
  });
  write_sum_of_groups(sum, parts + blockIdx.x * cols, cols);
  if (!sum_over_blocks(parts, cols, done_blocks)) return;
  for_each_column_of_block(cols, [&](std::int64_t c) { sums[c] += parts[c]; });
}

template <typename T>
void launch_column_sums(DeviceMatrix<T> x, DeviceSpan<float> sums, const Stream& stream) {
  Buffer<float> parts(kMostBlocks * x.cols, stream);
  with_row_groups(
      x.rows, x.cols, kMostBlocks,
      [&](auto fours, auto access, const GroupLaunch& shape) {
        launch(add_column_sums<fours(), access(), T>, shape.blocks, shape.block,
               shared_bytes(x.cols), stream, rows_of(x), x.rows, x.cols, parts.device_data(),
               sums.device_data(), stream.attached<DoneBlocks>().device_data());
      },
      x);
}

MatrixProduct::Round rounding(Precision precision) {
  return precision == Precision::kTf32 ? MatrixProduct::Round::kToTf32
                                       : MatrixProduct::Round::kNothing;
}

}  // namespace

template <>
void linear_forward_on<DeviceType::kCuda>(const LinearForward& args, const Stream& stream) {
  multiply({.a = args.x,
            .b = args.weight,
            .b_is = Operand::kTransposed,
            .bias = args.bias,
            .result = args.y,
            .round = rounding(args.precision)},
           stream);
}

template <>
void linear_backward_on<DeviceType::kCuda>(const LinearBackward& args, const Stream& stream) {
  if (args.x.rows == 0) return;
  const MatrixProduct::Round round = rounding(args.precision);
  if (args.d_x.has_data()) {
    multiply({.a = args.d_y, .b = args.weight, .result = args.d_x, .round = round}, stream);
  }
  multiply({.a = args.d_y,
            .a_is = Operand::kTransposed,
            .b = args.x,
            .result = args.d_weight,
            .write = MatrixProduct::Write::kAccumulate,
            .round = round},
           stream);
  for (std::int64_t begin = 0; begin < std::ssize(args.d_bias); begin += kMostGroupColumns) {
    const std::int64_t end = std::min(begin + kMostGroupColumns, args.d_y.cols);
    with_elements(args.d_y.columns(begin, end), [&](const auto& d_y) {
      launch_column_sums(d_y, args.d_bias.subspan(begin, end - begin), stream);
    });
  }
}

}  // namespace serrate
