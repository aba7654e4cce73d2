// The products are cuBLASLt's; the gradient of the bias adds up columns in a fixed order. In bf16,
// products are of rounded copies: that reads and writes each factor once more, in exchange for
// tensor cores at their full rate and sums that do not depend on what cuBLAS would round.
#include <cuda_bf16.h>

#include "kernels/cuda/block_sums.cuh"
#include "kernels/cuda/matrix_product.h"
#include "kernels/dense/cuda/row_group.cuh"
#include "serrate/kernels/linear.h"

namespace serrate {
namespace {

constexpr std::int64_t kMostBlocks = 264;  // two on each of Hopper's 132 multiprocessors
static_assert(kMostBlocks <= kMostSummedBlocks);

// A group keeps the sums of its rows in registers. parts is [blocks, cols].
template <int kFours, Access kAccess>
__global__ void __launch_bounds__(kGroupThreads)
    add_column_sums(Rows<const float> x, std::int64_t rows, std::int64_t cols, float* parts,
                    float* sums, unsigned* done_blocks) {
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

void launch_column_sums(DeviceMatrix<const float> x, DeviceSpan<float> sums, const Stream& stream) {
  Buffer<float> parts(kMostBlocks * x.cols, stream);
  with_row_groups(
      x.rows, x.cols, kMostBlocks,
      [&](auto fours, auto access, const GroupLaunch& shape) {
        launch(add_column_sums<fours(), access()>, shape.blocks, shape.block, shared_bytes(x.cols),
               stream, rows_of(x), x.rows, x.cols, parts.device_data(), sums.device_data(),
               stream.attached<DoneBlocks>().device_data());
      },
      x);
}

struct alignas(8) FourRounded {
  __nv_bfloat16 value[4];
};

template <Access kAccess>
struct Round {
  Rows<const float> from;
  Rows<FourRounded> to;
  std::int64_t cols;

  __device__ void operator()(std::int64_t r, std::int64_t c) const {
    const Four four = load_four<kAccess>(from.row(r), c, cols);
    FourRounded rounded;
#pragma unroll
    for (int k = 0; k < 4; ++k) rounded.value[k] = __float2bfloat16_rn(four.value[k]);
    to.row(r)[c / 4] = rounded;
  }
};

/// A copy in bf16, to nearest. Its rows begin at multiples of 16 bytes, which tensor cores want.
class Rounded {
 public:
  Rounded(const DeviceMatrix<const float>& from, const Stream& stream)
      : rows_(from.rows), cols_(from.cols), values_(rows_ * stride(), stream) {
    with_access(
        [&](auto access) {
          auto* const to = reinterpret_cast<FourRounded*>(values_.device_data());
          const Round<access()> round{rows_of(from), {to, stride() / 4}, cols_};
          launch_for_each_four(rows_, cols_, round, stream);
        },
        from);
  }
  DeviceMatrix<const BFloat16> matrix() const {
    return {values_.device_data(), rows_, cols_, stride()};
  }

 private:
  std::int64_t stride() const { return (cols_ + 7) / 8 * 8; }

  std::int64_t rows_, cols_;
  Buffer<BFloat16> values_;
};

/// Calls f(factors..., round) with the matrices as products of this precision take them.
template <typename F, typename... Matrices>
void with_factors(Precision precision, const Stream& stream, const F& f,
                  const Matrices&... matrices) {
  using enum MatrixProduct::Round;
  if (precision == Precision::kBf16) return f(Rounded(matrices, stream).matrix()..., kNothing);
  f(matrices..., precision == Precision::kTf32 ? kToTf32 : kNothing);
}

}  // namespace

template <>
void linear_forward_on<DeviceType::kCuda>(const LinearForward& args, const Stream& stream) {
  with_factors(
      args.precision, stream,
      [&](const Factor& x, const Factor& weight, MatrixProduct::Round round) {
        multiply({.a = x,
                  .b = weight,
                  .b_is = Operand::kTransposed,
                  .bias = args.bias,
                  .result = args.y,
                  .round = round},
                 stream);
      },
      args.x, args.weight);
}

template <>
void linear_backward_on<DeviceType::kCuda>(const LinearBackward& args, const Stream& stream) {
  if (args.x.rows == 0) return;
  with_factors(
      args.precision, stream,
      [&](const Factor& x, const Factor& weight, const Factor& d_y, MatrixProduct::Round round) {
        if (args.d_x.has_data()) {
          multiply({.a = d_y, .b = weight, .result = args.d_x, .round = round}, stream);
        }
        multiply({.a = d_y,
                  .a_is = Operand::kTransposed,
                  .b = x,
                  .result = args.d_weight,
                  .write = MatrixProduct::Write::kAccumulate,
                  .round = round},
                 stream);
      },
      args.x, args.weight, args.d_y);
  for (std::int64_t begin = 0; begin < std::ssize(args.d_bias); begin += kMostGroupColumns) {
    const std::int64_t end = std::min(begin + kMostGroupColumns, args.d_y.cols);
    launch_column_sums(args.d_y.columns(begin, end), args.d_bias.subspan(begin, end - begin),
                       stream);
  }
}

}  // namespace serrate
