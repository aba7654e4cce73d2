#pragma once

#include <algorithm>
#include <cstdint>

namespace serrate {

/// Of MatrixViews or DeviceMatrices.
template <typename A, typename B>
bool same_shape(const A& a, const B& b) {
  return a.rows == b.rows && a.cols == b.cols;
}

/// CPU kernels give threads chunks of this many rows, whatever their number, and add the chunks'
/// sums in order: so sums have the same bits on any number of threads.
constexpr std::int64_t kRowChunk = 512;

constexpr std::int64_t num_row_chunks(std::int64_t rows) {
  return (rows + kRowChunk - 1) / kRowChunk;
}

struct RowRange {
  std::int64_t begin, end;
};

constexpr RowRange rows_of_chunk(std::int64_t chunk, std::int64_t rows) {
  return {chunk * kRowChunk, std::min(rows, (chunk + 1) * kRowChunk)};
}

}  // namespace serrate
