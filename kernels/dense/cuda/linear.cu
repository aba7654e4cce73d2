// The products are cuBLASLt's; the gradient of the bias adds up columns in a fixed order.
#include "kernels/cuda/matrix_product.h"
#include "kernels/dense/cuda/column_sums.cuh"
#include "serrate/kernels/linear.h"

namespace serrate {
namespace {

template <Access kAccess, typename T>
struct ReadRow {
  using Part = RowPart<1, kAccess>;
  Rows<T> x;
  __device__ Part operator()(std::int64_t r, std::int64_t cols) const {
    return Part::load(x.row(r), cols);
  }
};

}  // namespace

template <>
void linear_forward_on<DeviceType::kCuda>(const LinearForward& args, const Stream& stream) {
  multiply({.a = args.x,
            .b = args.weight,
            .b_is = Operand::kTransposed,
            .bias = args.bias,
            .result = args.y,
            .precision = args.precision},
           stream);
}

template <>
void linear_backward_on<DeviceType::kCuda>(const LinearBackward& args, const Stream& stream) {
  if (args.x.rows == 0) return;
  if (args.d_x.has_data()) {
    multiply({.a = args.d_y, .b = args.weight, .result = args.d_x, .precision = args.precision},
             stream);
  }
  multiply({.a = args.d_y,
            .a_is = Operand::kTransposed,
            .b = args.x,
            .result = args.d_weight,
            .write = MatrixProduct::Write::kAccumulate,
            .precision = args.precision},
           stream);
  if (args.d_bias.empty()) return;
  with_elements(args.d_y, [&]<typename T>(const DeviceMatrix<T>& d_y) {
    const auto make = [&](auto access, std::int64_t begin, std::int64_t end) {
      return ReadRow<access(), T>{rows_of(d_y.columns(begin, end))};
    };
    launch_column_sums(args.d_bias, stream, make, d_y);
  });
}

}  // namespace serrate
