#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "serrate/any_matrix.h"
#include "serrate/error.h"
#include "serrate/stream.h"

namespace serrate {

/// Throws Error that names the matrix ("layer_norm: y") unless it is of a type that dense ops have:
/// float32, and off the CPU bfloat16.
inline void check_type(const InputMatrix& matrix, const char* name, Device device) {
  const bool on_cpu = device.type == DeviceType::kCpu;
  if (matrix.type == DataType::kFloat32 || (matrix.type == DataType::kBFloat16 && !on_cpu)) return;
  throw Error(std::string(name) + " is of " + to_string(matrix.type) + " (" +
              (on_cpu ? "on the CPU the op takes fp32 alone" : "the op takes fp32 and bf16") +
              "): pass a matrix of such a type");
}

/// For MatrixViews and DeviceMatrices.
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
