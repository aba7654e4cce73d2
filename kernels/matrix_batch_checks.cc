#include "kernels/matrix_batch_checks.h"

#include <algorithm>

#include "kernels/shapes.h"

namespace serrate {

void check_offsets(const HostBatch<const float>& batch, std::string_view name) {
  const auto is_ordered = [](std::span<const std::int64_t> offsets) {
    return offsets.empty() || (offsets.front() >= 0 && std::ranges::is_sorted(offsets));
  };
  if (!is_ordered(batch.row_offsets) || !is_ordered(batch.col_offsets) ||
      !is_ordered(batch.value_offsets)) {
    throw Error(fmt::format("the offsets of {} must begin at 0 or above and never fall", name));
  }
  const auto &rows = batch.row_offsets, &pairs = batch.value_offsets;
  std::int64_t end = 0;
  if (!pairs.empty()) {
    end = pairs.back();
  } else if (!rows.empty() && rows.back() > 0) {
    end = (rows.back() - 1) * batch.stride + batch.cols;
  }
  if (end > batch.num_values) {
    throw Error(fmt::format("the offsets of {} lead behind its last value ({} of {})", name, end,
                            batch.num_values));
  }
  for (std::int64_t b = 0; b < batch.batch_size && !pairs.empty(); ++b) {
    const MatrixView<const float> sample = batch.sample(b);
    if (pairs[b + 1] - pairs[b] == sample.rows * sample.cols) continue;
    throw Error(
        fmt::format("pair offsets of {} must be apart by rows x columns ({} x {} for sample {})",
                    name, sample.rows, sample.cols, b));
  }
}

void check_same_shapes(const HostBatch<const float>& a, const HostBatch<const float>& b,
                       std::string_view message) {
  const bool have_same_offsets =
      a.row_offsets.data() == b.row_offsets.data() && a.col_offsets.data() == b.col_offsets.data();
  if (have_same_offsets && a.rows == b.rows && a.cols == b.cols) return;
  check_samples(a.batch_size, message,
                [&](std::int64_t s) { return same_shape(a.sample(s), b.sample(s)); });
}

}  // namespace serrate
