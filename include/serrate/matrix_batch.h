#pragma once

#include <cstdint>
#include <type_traits>

#include "serrate/device_span.h"
#include "serrate/error.h"

namespace serrate {

/// A row-major matrix for every sample of a batch, in memory of one device that somebody else
/// owns, values and offsets. Offsets never fall, equal ones make a sample empty. What lies before
/// the first offset and behind the last belongs to no sample.
template <typename T>
struct MatrixBatch {
  DeviceSpan<T> values;  ///< all that may be read or written
  std::int64_t batch_size = 0;
  std::int64_t rows = 0, cols = 0;  ///< of every sample, where no offsets say it
  std::int64_t stride = 0;          ///< from a row to the next; 0: the columns of the sample
  std::int64_t sample_stride = 0;   ///< from a sample to the next, where no offsets say it
  DeviceSpan<const std::int64_t> row_offsets, col_offsets, value_offsets;  ///< [batch_size + 1]

  /// Sequences of rows: sample b is rows [offsets[b], offsets[b + 1]) of values.
  static MatrixBatch jagged(DeviceMatrix<T> values, DeviceSpan<const std::int64_t> offsets) {
    MatrixBatch batch = shared(values, num_samples(offsets));
    batch.rows = 0;
    batch.row_offsets = offsets;
    return batch;
  }
  /// [batch_size, rows, cols], one sample behind the other: values is [batch_size * rows, cols].
  /// Throws Error if its rows cannot be divided so.
  static MatrixBatch dense(DeviceMatrix<T> values, std::int64_t batch_size) {
    check(batch_size > 0 ? values.rows % batch_size == 0 : values.rows == 0,
          "a dense batch must have as many rows for every sample: batch_size has to divide them");
    MatrixBatch batch = shared(values, batch_size);
    batch.rows = batch_size > 0 ? values.rows / batch_size : 0;
    batch.sample_stride = batch.rows * batch.stride;
    return batch;
  }
  /// A number for every pair of a row in one jagged batch and a row in another (or the same, as in
  /// [sum of N_b^2]): sample b is [M_b, N_b] from values[pair_offsets[b]] on; see pair_offsets().
  static MatrixBatch pairs(DeviceSpan<T> values, DeviceSpan<const std::int64_t> pair_offsets,
                           DeviceSpan<const std::int64_t> row_offsets,
                           DeviceSpan<const std::int64_t> col_offsets) {
    MatrixBatch batch;
    batch.values = values;
    batch.batch_size = num_samples(pair_offsets);
    batch.row_offsets = row_offsets;
    batch.col_offsets = col_offsets;
    batch.value_offsets = pair_offsets;
    return batch;
  }
  /// One matrix that all samples see.
  static MatrixBatch shared(DeviceMatrix<T> values, std::int64_t batch_size) {
    MatrixBatch batch;
    const std::int64_t size = values.rows > 0 ? (values.rows - 1) * values.stride + values.cols : 0;
    batch.values = {values.device_data(), static_cast<std::size_t>(size)};
    batch.batch_size = batch_size;
    batch.rows = values.rows;
    batch.cols = values.cols;
    batch.stride = values.stride;
    return batch;
  }

  /// A const view of the same matrices.
  operator MatrixBatch<const T>() const  // NOLINT: implicit, as from span<T> to span<const T>
    requires(!std::is_const_v<T>)
  {
    return {values,        batch_size,  rows,        cols,         stride,
            sample_stride, row_offsets, col_offsets, value_offsets};
  }

  /// Optional arguments that are left out have none.
  bool has_data() const { return values.device_data() != nullptr; }
  /// Whether all samples are the same matrix, so that a gradient sums over them.
  bool is_shared() const { return row_offsets.empty() && rows > 0 && sample_stride == 0; }

 private:
  static std::int64_t num_samples(DeviceSpan<const std::int64_t> offsets) {
    return static_cast<std::int64_t>(offsets.size()) - 1;
  }
};

}  // namespace serrate
