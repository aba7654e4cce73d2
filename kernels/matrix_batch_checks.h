#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <string_view>

#include "kernels/host_batch.h"
#include "serrate/error.h"
#include "serrate/matrix_batch.h"

namespace serrate {

/// What holds whatever the offsets say; for all backends.
inline void check_batch(const MatrixBatch<const float>& batch, std::int64_t batch_size,
                        std::string_view name) {
  const auto fits = [&](DeviceSpan<const std::int64_t> offsets) {
    return offsets.empty() || std::ssize(offsets) == batch_size + 1;
  };
  if (batch_size < 0 || batch.batch_size != batch_size || !fits(batch.row_offsets) ||
      !fits(batch.col_offsets) || !fits(batch.value_offsets)) {
    throw Error(
        fmt::format("{} must have as many samples as its other operands (here {}) and "
                    "offsets with one entry more",
                    name, batch_size));
  }
  check(batch.stride >= batch.cols, "rows of a matrix must not overlap: stride below its columns");
}

/// Throws Error if offsets fall or lead outside the values.
void check_offsets(const HostBatch<const float>& batch, std::string_view name);

/// Throws Error naming the first sample for which `fits` does not hold.
template <typename F>
void check_samples(std::int64_t batch_size, std::string_view message, const F& fits) {
  for (std::int64_t b = 0; b < batch_size; ++b) {
    if (!fits(b)) throw Error(fmt::format("{} (sample {} does not)", message, b));
  }
}

/// Throws Error naming the first sample whose matrices do not have the same shape.
void check_same_shapes(const HostBatch<const float>& a, const HostBatch<const float>& b,
                       std::string_view message);

}  // namespace serrate
