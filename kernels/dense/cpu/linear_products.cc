// The weight is packed once for all rows of x, which is read where it lies.
#include <algorithm>

#include "kernels/dense/cpu/linear_products.h"
#include "kernels/shapes.h"
#include "kernels/simd/targets.h"
#include "serrate/buffer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dense/cpu/linear_products.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "kernels/simd/gemm-inl.h"
#include "kernels/simd/pack-inl.h"
#include "kernels/simd/rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace serrate::HWY_NAMESPACE {

// A weight is packed in panels of 32 columns or what is left, one after the other: a panel stays
// in the L1 cache while the rows of a tile go by.
constexpr std::int64_t kPanel = 32;

// Panels of the transposed weight: [in, 32] each.
void pack_transposed(const MatrixView<const float>& weight, float* packed) {
  for (std::int64_t begin = 0; begin < weight.rows; begin += kPanel) {
    const std::int64_t width = std::min(kPanel, weight.rows - begin);
    transpose_rows({weight.row(begin), weight.stride}, width, weight.cols, 1,
                   {packed + begin * weight.cols, width});
  }
}

// Panels of the weight as it is: [out, 32] each.
void pack_weight(const MatrixView<const float>& weight, float* packed) {
  for (std::int64_t begin = 0; begin < weight.cols; begin += kPanel) {
    const std::int64_t width = std::min(kPanel, weight.cols - begin);
    copy_rows({weight.data + begin, weight.stride}, weight.rows, width,
              {packed + begin * weight.rows, width});
  }
}

// y = or += x times the packed matrix [x.cols, y.cols].
void packed_product(const MatrixView<const float>& x, const float* packed,
                    const MatrixView<float>& y, Into into) {
  for (std::int64_t begin = 0; begin < y.cols; begin += kPanel) {
    const std::int64_t width = std::min(kPanel, y.cols - begin);
    multiply<Left::kAsIs>(y.rows, width, {x.data, x.stride}, {packed + begin * x.cols, width},
                          {y.data + begin, y.stride}, into,
                          [&](std::int64_t, std::int64_t) { return Extent{0, 0, x.cols}; });
  }
}

void forward_tile(const HostLinearForward& args, const float* packed, RowRange rows) {
  const auto y = args.y.middle_rows(rows.begin, rows.end);
  for (std::int64_t r = 0; r < y.rows && !args.bias.empty(); ++r) {
    std::copy(args.bias.begin(), args.bias.end(), y.row(r));
  }
  packed_product(args.x.middle_rows(rows.begin, rows.end), packed, y,
                 args.bias.empty() ? Into::kOverwrite : Into::kAdd);
}

void input_gradient_tile(const HostLinearBackward& args, const float* packed, RowRange rows) {
  packed_product(args.d_y.middle_rows(rows.begin, rows.end), packed,
                 args.d_x.middle_rows(rows.begin, rows.end), Into::kOverwrite);
}

// Rows `out` of d_weight and d_bias: what the tokens of a tile add.
void add_weight_gradient(const HostLinearBackward& args, RowRange tokens, RowRange out) {
  const auto d_y = args.d_y.middle_rows(tokens.begin, tokens.end).columns(out.begin, out.end);
  const auto x = args.x.middle_rows(tokens.begin, tokens.end);
  const auto d_weight = args.d_weight.middle_rows(out.begin, out.end);
  multiply<Left::kTransposed>(d_weight.rows, d_weight.cols, {d_y.data, d_y.stride},
                              {x.data, x.stride}, {d_weight.data, d_weight.stride}, Into::kAdd,
                              [&](std::int64_t, std::int64_t) { return Extent{0, 0, x.rows}; });
  for (std::int64_t t = 0; t < d_y.rows && !args.d_bias.empty(); ++t) {
    add_row(d_y.row(t), &args.d_bias[out.begin], d_y.cols);
  }
}

}  // namespace serrate::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace serrate {
HWY_EXPORT(pack_transposed);
HWY_EXPORT(pack_weight);
HWY_EXPORT(forward_tile);
HWY_EXPORT(input_gradient_tile);
HWY_EXPORT(add_weight_gradient);

namespace {

constexpr std::int64_t kTile = 64;           // rows of x
constexpr std::int64_t kGradientTile = 128;  // the same, for d_weight
constexpr std::int64_t kGradientRows = 32;   // rows of d_weight

}  // namespace

void whole_linear_forward(const HostLinearForward& args, const Stream& stream) {
  const std::int64_t n = args.x.rows;
  Buffer<float> buffer(args.weight.rows * args.weight.cols, stream);
  const std::span<float> packed = host_view(buffer.span(), stream);
  HWY_DYNAMIC_DISPATCH(pack_transposed)(args.weight, packed.data());
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t begin = 0; begin < n; begin += kTile) {
    HWY_DYNAMIC_DISPATCH(forward_tile)
    (args, packed.data(), {begin, std::min(n, begin + kTile)});
  }
}

// A batch of tokens gives d_x, by tiles of tokens, and adds to d_weight, by blocks of its rows,
// while its d_y is in cache. Threads do not wait for each other: a static schedule gives each the
// same rows of d_weight in every batch.
void whole_linear_backward(const HostLinearBackward& args, const Stream& stream) {
  const std::int64_t n = args.x.rows, out = args.weight.rows;
  const std::int64_t batch = kGradientTile * stream.num_threads();
  Buffer<float> buffer(args.weight.rows * args.weight.cols, stream);
  const std::span<float> packed = host_view(buffer.span(), stream);
  HWY_DYNAMIC_DISPATCH(pack_weight)(args.weight, packed.data());
#pragma omp parallel num_threads(stream.num_threads())
  for (std::int64_t first = 0; first < n; first += batch) {
    const std::int64_t last = std::min(n, first + batch);
#pragma omp for schedule(static) nowait
    for (std::int64_t begin = first; begin < (args.d_x.data ? last : first); begin += kTile) {
      HWY_DYNAMIC_DISPATCH(input_gradient_tile)
      (args, packed.data(), {begin, std::min(last, begin + kTile)});
    }
#pragma omp for schedule(static) nowait
    for (std::int64_t row = 0; row < out; row += kGradientRows) {
      for (std::int64_t begin = first; begin < last; begin += kGradientTile) {
        HWY_DYNAMIC_DISPATCH(add_weight_gradient)
        (args, {begin, std::min(last, begin + kGradientTile)},
         {row, std::min(out, row + kGradientRows)});
      }
    }
  }
}

}  // namespace serrate
#endif  // HWY_ONCE
