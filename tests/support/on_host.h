#pragma once

#include <span>
#include <type_traits>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/device_span.h"

namespace serrate {

/// A copy of a device's values; waits for the stream.
template <typename T>
std::vector<std::remove_const_t<T>> on_host(DeviceSpan<T> values, const Stream& stream) {
  std::vector<std::remove_const_t<T>> host(values.size());
  copy_to_host(values, std::span(host), stream);
  return host;
}

/// The same, row after row.
template <typename T>
std::vector<float> on_host(const DeviceMatrix<T>& matrix, const Stream& stream) {
  std::vector<float> host(static_cast<std::size_t>(matrix.rows * matrix.cols));
  copy_to_host(matrix, MatrixView<float>(host.data(), matrix.rows, matrix.cols), stream);
  return host;
}

}  // namespace serrate
