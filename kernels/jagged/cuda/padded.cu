// Each value of the target is read, or filled in, and written once.
#include "kernels/jagged/cuda/runs.cuh"
#include "serrate/kernels/jagged_padded.h"

namespace serrate {
namespace {

template <int kWidth>
struct CopySamples {
  Samples<const float> from;
  RowVector<kWidth> fill;
  Samples<float> to;

  __device__ void operator()(const Run& run) const {
    const Sample<const float> source = from[run.sample];
    const Sample<float> target = to[run.sample];
    for_each_of_run<kWidth>(run, target.cols, [&](std::int64_t r, std::int64_t c) {
      const bool is_there = r < source.rows && c < source.cols;
      store(is_there ? load<kWidth>(source.row(r) + c) : fill, target.row(r) + c);
    });
  }
};

}  // namespace

template <>
void copy_samples_on<DeviceType::kCuda>(const MatrixBatch<const float>& from, float fill,
                                        const MatrixBatch<float>& to, const Stream& stream) {
  with_width(
      [&](auto width) {
        RowVector<width()> filling;
        std::ranges::fill(filling.value, fill);
        const CopySamples<width()> copy{samples_of(from), filling, samples_of(to)};
        launch_over_rows(copy, to, width, stream);
      },
      from, to);
}

}  // namespace serrate
