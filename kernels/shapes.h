#pragma once

#include <cstdint>

#include "serrate/matrix_view.h"

namespace serrate {

template <typename A, typename B>
bool same_shape(const MatrixView<A>& a, const MatrixView<B>& b) {
  return a.rows == b.rows && a.cols == b.cols;
}

/// Reductions over rows are done in chunks of this many rows, whatever the number of threads, and
/// the chunks' sums added in order: so sums have the same bits on any number of threads.
constexpr std::int64_t kRowChunk = 512;

constexpr std::int64_t num_row_chunks(std::int64_t rows) {
  return (rows + kRowChunk - 1) / kRowChunk;
}

}  // namespace serrate
