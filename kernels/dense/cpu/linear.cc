// Weights whose sides are no whole vectors are multiplied as padded copies, with zeros. Vectors of
// tokens are long beside that: a copy of x or y costs less than its products.
#include <algorithm>

#include "kernels/dense/cpu/linear_products.h"
#include "serrate/buffer.h"

namespace serrate {
namespace {

std::int64_t whole(std::int64_t size) {
  return (size + kWholeSide - 1) / kWholeSide * kWholeSide;
}

bool is_whole(const MatrixView<const float>& weight) {
  return weight.rows % kWholeSide == 0 && weight.cols % kWholeSide == 0;
}

/// A copy with rows and columns of zeros behind.
class Padded {
 public:
  Padded(MatrixView<const float> from, std::int64_t rows, const Stream& stream)
      : buffer_(Buffer<float>::zeros(rows * whole(from.cols), stream)),
        view_(host_view(buffer_.span(), stream).data(), rows, whole(from.cols)) {
    for (std::int64_t r = 0; r < from.rows; ++r) {
      std::copy_n(from.row(r), from.cols, view_.row(r));
    }
  }
  Padded(std::span<const float> row, const Stream& stream)
      : Padded({row.data(), 1, std::ssize(row)}, 1, stream) {}

  const MatrixView<float>& view() const { return view_; }
  std::span<float> row() const { return {view_.data, static_cast<std::size_t>(view_.cols)}; }
  void copy_to(const MatrixView<float>& to) const {
    for (std::int64_t r = 0; r < to.rows; ++r) std::copy_n(view_.row(r), to.cols, to.row(r));
  }

 private:
  Buffer<float> buffer_;
  MatrixView<float> view_;
};

}  // namespace

template <>
void linear_forward_on<DeviceType::kCpu>(const LinearForward& linear, const Stream& stream) {
  const HostLinearForward args{host_view(linear.x, stream), host_view(linear.weight, stream),
                               host_view(linear.bias.as<float>().row(0), stream),
                               host_view(linear.y, stream)};
  if (is_whole(args.weight)) return whole_linear_forward(args, stream);
  const Padded x(args.x, args.x.rows, stream);
  const Padded weight(args.weight, whole(args.weight.rows), stream);
  const Padded y({nullptr, 0, args.y.cols}, args.y.rows, stream);
  const Padded bias(args.bias, stream);
  whole_linear_forward({x.view(), weight.view(), bias.row(), y.view()}, stream);
  y.copy_to(args.y);
}

template <>
void linear_backward_on<DeviceType::kCpu>(const LinearBackward& linear, const Stream& stream) {
  const HostLinearBackward args{
      host_view(linear.x, stream),        host_view(linear.weight, stream),
      host_view(linear.d_y, stream),      host_view(linear.d_x, stream),
      host_view(linear.d_weight, stream), host_view(linear.d_bias, stream)};
  if (is_whole(args.weight)) return whole_linear_backward(args, stream);
  const Padded x(args.x, args.x.rows, stream), d_y(args.d_y, args.d_y.rows, stream);
  const Padded weight(args.weight, whole(args.weight.rows), stream);
  const Padded d_weight(args.d_weight, whole(args.d_weight.rows), stream);
  const Padded d_x({nullptr, 0, args.x.cols}, args.d_x.data ? args.x.rows : 0, stream);
  const Padded d_bias(args.d_bias, stream);
  whole_linear_backward(
      {x.view(), weight.view(), d_y.view(), args.d_x.data ? d_x.view() : MatrixView<float>(),
       d_weight.view(), d_bias.row()},
      stream);
  if (args.d_x.data) d_x.copy_to(args.d_x);
  d_weight.copy_to(args.d_weight);
  d_bias.copy_to({args.d_bias.data(), args.d_bias.empty() ? 0 : 1, std::ssize(args.d_bias)});
}

}  // namespace serrate
