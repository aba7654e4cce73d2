#include <algorithm>

#include "kernels/blas.h"
#include "kernels/linear_narrow.h"
#include "kernels/shapes.h"
#include "serrate/buffer.h"
#include "serrate/kernels/linear.h"

// Rows are cut into fixed chunks: a product's bits depend on its shape, so the shapes may not
// depend on the number of threads. A chunk's operands stay in the L2 cache for all that uses them.
namespace serrate {
namespace {

template <typename T>
MatrixView<T> chunk_of(const MatrixView<T>& matrix, std::int64_t chunk) {
  const auto [begin, end] = rows_of_chunk(chunk, matrix.rows);
  return matrix.middle_rows(begin, end);
}

// d_weight [out, in] then d_bias [out] of one chunk.
void chunk_gradients(const LinearBackward& args, std::int64_t chunk, float* d_weight,
                     float* d_bias) {
  const auto d_y = chunk_of(args.d_y, chunk);
  gemm(1, transposed(d_y), plain(chunk_of(args.x, chunk)), 0,
       {d_weight, args.weight.rows, args.weight.cols});
  if (args.d_bias.empty()) return;
  std::fill_n(d_bias, d_y.cols, 0.0f);
  for (std::int64_t r = 0; r < d_y.rows; ++r) {
    const float* row = d_y.row(r);
#pragma omp simd
    for (std::int64_t c = 0; c < d_y.cols; ++c) d_bias[c] += row[c];
  }
}

}  // namespace

template <>
void linear_forward_on<DeviceType::kCpu>(const LinearForward& args, const Stream& stream) {
  if (is_narrow(args.weight)) return narrow_linear_forward(args, stream);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t chunk = 0; chunk < num_row_chunks(args.x.rows); ++chunk) {
    const MatrixView<float> y = chunk_of(args.y, chunk);
    for (std::int64_t r = 0; r < y.rows && !args.bias.empty(); ++r) {
      std::copy(args.bias.begin(), args.bias.end(), y.row(r));
    }
    gemm(1, plain(chunk_of(args.x, chunk)), transposed(args.weight), args.bias.empty() ? 0 : 1, y);
  }
}

template <>
void linear_backward_on<DeviceType::kCpu>(const LinearBackward& args, const Stream& stream) {
  if (is_narrow(args.weight)) return narrow_linear_backward(args, stream);
  const std::int64_t num_chunks = num_row_chunks(args.x.rows);
  const std::int64_t out = args.weight.rows, in = args.weight.cols;
  const std::int64_t partial_size = out * (in + 1);
  Buffer<float> partials(num_chunks * partial_size, stream);
#pragma omp parallel num_threads(stream.num_threads())
  {
#pragma omp for schedule(static)
    for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
      float* partial = partials.data() + chunk * partial_size;
      chunk_gradients(args, chunk, partial, partial + out * in);
      if (args.d_x.data) {
        gemm(1, plain(chunk_of(args.d_y, chunk)), plain(args.weight), 0, chunk_of(args.d_x, chunk));
      }
    }
#pragma omp for schedule(static)
    for (std::int64_t o = 0; o < out; ++o) {
      float* d_weight = args.d_weight.row(o);
      for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) {
        const float* partial = partials.data() + chunk * partial_size;
#pragma omp simd
        for (std::int64_t i = 0; i < in; ++i) d_weight[i] += partial[o * in + i];
        if (!args.d_bias.empty()) args.d_bias[o] += partial[out * in + o];
      }
    }
  }
}

}  // namespace serrate
