#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "serrate/matrix_batch.h"
#include "serrate/stream.h"

namespace serrate {

/// A MatrixBatch in the memory of a CPU's stream: its offsets can be read.
template <typename T>
struct HostBatch {
  T* data = nullptr;
  std::int64_t num_values = 0;
  std::int64_t batch_size = 0;
  std::int64_t rows = 0, cols = 0;
  std::int64_t stride = 0;
  std::int64_t sample_stride = 0;
  std::span<const std::int64_t> row_offsets, col_offsets, value_offsets;

  /// A const view of the same matrices.
  operator HostBatch<const T>() const  // NOLINT: implicit, as from span<T> to span<const T>
    requires(!std::is_const_v<T>)
  {
    return {data,   num_values,    batch_size,  rows,        cols,
            stride, sample_stride, row_offsets, col_offsets, value_offsets};
  }

  MatrixView<T> sample(std::int64_t b) const {
    const std::int64_t b_rows = length(row_offsets, b, rows), b_cols = length(col_offsets, b, cols);
    if (!value_offsets.empty()) return {data + value_offsets[b], b_rows, b_cols, b_cols};
    const std::int64_t first = row_offsets.empty() ? b * sample_stride : row_offsets[b] * stride;
    return {data + first, b_rows, b_cols, stride};
  }

 private:
  static std::int64_t length(std::span<const std::int64_t> offsets, std::int64_t b,
                             std::int64_t otherwise) {
    return offsets.empty() ? otherwise : offsets[b + 1] - offsets[b];
  }
};

template <typename T>
HostBatch<T> host_view(const MatrixBatch<T>& batch, const Stream& stream) {
  return {host_view(batch.values, stream).data(),
          std::ssize(batch.values),
          batch.batch_size,
          batch.rows,
          batch.cols,
          batch.stride,
          batch.sample_stride,
          host_view(batch.row_offsets, stream),
          host_view(batch.col_offsets, stream),
          host_view(batch.value_offsets, stream)};
}

}  // namespace serrate
