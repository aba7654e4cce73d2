#include "kernels/matrix_batch_checks.h"

#include <algorithm>

namespace serrate {

void check_offsets(const MatrixBatch<const float>& batch, std::string_view name) {
  const auto is_ordered = [](std::span<const std::int64_t> offsets) {
    return offsets.empty() || (offsets.front() >= 0 && std::ranges::is_sorted(offsets));
  };
  if (!is_ordered(batch.row_offsets) || !is_ordered(batch.col_offsets) ||
      !is_ordered(batch.value_offsets)) {
    throw Error(fmt::format("the offsets of {} must begin at 0 or above and never fall", name));
  }
  for (std::int64_t b = 0; b < batch.batch_size; ++b) {
    const MatrixView<const float> sample = batch.sample(b);
    const std::int64_t size = sample.rows > 0 ? (sample.rows - 1) * sample.stride + sample.cols : 0;
    if (size > 0 && sample.data + size > batch.data + batch.num_values) {
      throw Error(fmt::format("sample {} of {} lies behind its last value (there are {})", b, name,
                              batch.num_values));
    }
    const auto& offsets = batch.value_offsets;
    if (!offsets.empty() && offsets[b + 1] - offsets[b] != size) {
      throw Error(
          fmt::format("pair offsets of {} must be apart by rows x columns: {} x {} for "
                      "sample {}",
                      name, sample.rows, sample.cols, b));
    }
  }
}

}  // namespace serrate
