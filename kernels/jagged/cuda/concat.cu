// A sequence's z is the rows of its x, then those of its y: each value is read and written once.
#include <type_traits>

#include "kernels/jagged/cuda/offsets.cuh"
#include "kernels/jagged/cuda/runs.cuh"
#include "serrate/kernels/jagged_concat.h"

namespace serrate {
namespace {

// Z and X are const float for the side that is read.
template <int kWidth, typename Z, typename X>
struct MoveRows {
  Samples<Z> z;
  Samples<X> x, y;

  __device__ void operator()(const Run& run) const {
    const Sample<Z> all = z[run.sample];
    const Sample<X> first = x[run.sample], second = y[run.sample];
    for_each_of_run<kWidth>(run, all.cols, [&](std::int64_t r, std::int64_t c) {
      X* const part = r < first.rows ? first.row(r) : second.row(r - first.rows);
      if constexpr (std::is_const_v<Z>) {
        store(load<kWidth>(all.row(r) + c), part + c);
      } else {
        store(load<kWidth>(part + c), all.row(r) + c);
      }
    });
  }
};

template <typename Z, typename X>
void move_rows(const MatrixBatch<Z>& z, const MatrixBatch<X>& x, const MatrixBatch<X>& y,
               const Stream& stream) {
  with_width(
      [&](auto width) {
        const MoveRows<width(), Z, X> move{samples_of(z), samples_of(x), samples_of(y)};
        launch_over_rows(move, z, width, stream);
      },
      z, x, y);
}

struct RowsOfBoth {
  Samples<const float> x, y;
  __device__ std::int64_t operator()(std::int64_t b) const { return x[b].rows + y[b].rows; }
};

}  // namespace

template <>
void jagged_concat_on<DeviceType::kCuda>(const MatrixBatch<const float>& x,
                                         const MatrixBatch<const float>& y,
                                         const MatrixBatch<float>& z, const Stream& stream) {
  move_rows(z, x, y, stream);
}

template <>
void jagged_split_on<DeviceType::kCuda>(const MatrixBatch<const float>& z,
                                        const MatrixBatch<float>& x, const MatrixBatch<float>& y,
                                        const Stream& stream) {
  move_rows(z, x, y, stream);
}

template <>
void jagged_concat_offsets_on<DeviceType::kCuda>(const MatrixBatch<const float>& x,
                                                 const MatrixBatch<const float>& y,
                                                 DeviceSpan<std::int64_t> offsets,
                                                 const Stream& stream) {
  launch_offsets(RowsOfBoth{samples_of(x), samples_of(y)}, offsets, stream);
}

}  // namespace serrate
