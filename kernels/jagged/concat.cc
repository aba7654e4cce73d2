#include "serrate/kernels/jagged_concat.h"

#include "kernels/matrix_batch_checks.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

void check_shapes(const MatrixBatch<const float>& x, const MatrixBatch<const float>& y,
                  const MatrixBatch<const float>& z) {
  check_batch(x, z.batch_size, "x of jagged_concat");
  check_batch(y, z.batch_size, "y of jagged_concat");
  check_batch(z, z.batch_size, "z of jagged_concat");
  check(x.cols == z.cols && y.cols == z.cols && z.col_offsets.empty(),
        "jagged_concat: x, y and z must have the same columns");
}

}  // namespace

void jagged_concat(const MatrixBatch<const float>& x, const MatrixBatch<const float>& y,
                   const MatrixBatch<float>& z, const Stream& stream) {
  check_shapes(x, y, z);
  check(!z.is_shared(), "jagged_concat: z needs a matrix for every sample");
  dispatch_device(stream.device(), [&](auto d) { jagged_concat_on<d()>(x, y, z, stream); });
}

void jagged_split(const MatrixBatch<const float>& z, const MatrixBatch<float>& x,
                  const MatrixBatch<float>& y, const Stream& stream) {
  check_shapes(x, y, z);
  check(!x.is_shared() && !y.is_shared(), "jagged_split: x and y need a matrix for every sample");
  dispatch_device(stream.device(), [&](auto d) { jagged_split_on<d()>(z, x, y, stream); });
}

void jagged_concat_offsets(const MatrixBatch<const float>& x, const MatrixBatch<const float>& y,
                           DeviceSpan<std::int64_t> offsets, const Stream& stream) {
  check_batch(x, std::ssize(offsets) - 1, "x of jagged_concat");
  check_batch(y, std::ssize(offsets) - 1, "y of jagged_concat");
  dispatch_device(stream.device(),
                  [&](auto d) { jagged_concat_offsets_on<d()>(x, y, offsets, stream); });
}

}  // namespace serrate
