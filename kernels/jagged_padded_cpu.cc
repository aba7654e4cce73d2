#include <algorithm>
#include <cstdint>

#include "kernels/copy_rows.h"
#include "kernels/matrix_batch_checks.h"
#include "kernels/sample_tasks.h"
#include "serrate/kernels/jagged_padded.h"

namespace serrate {

template <>
void copy_samples_on<DeviceType::kCpu>(const MatrixBatch<const float>& from, float fill,
                                       const MatrixBatch<float>& to, const Stream& stream) {
  check_offsets(from, "the source of a jagged conversion");
  check_offsets(to, "the target of a jagged conversion");
  for_each_run(to, stream, [&](std::int64_t b, std::int64_t begin, std::int64_t end) {
    const MatrixView<const float> source = from.sample(b);
    const MatrixView<float> target = to.sample(b);
    const std::int64_t last = std::clamp(source.rows, begin, end);
    const std::int64_t cols = std::min(source.cols, target.cols);
    if (begin < last) {
      const MatrixView<float> copied = target.middle_rows(begin, last);
      copy_rows(source.middle_rows(begin, last).columns(0, cols), copied.columns(0, cols));
      fill_rows(copied.columns(cols, target.cols), fill);
    }
    fill_rows(target.middle_rows(last, end), fill);
  });
}

}  // namespace serrate
