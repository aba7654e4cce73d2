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

/// The same of a matrix of any type, as floats.
inline std::vector<float> on_host(const InputMatrix& any, const Stream& stream) {
  return with_any_elements(any, [&]<typename T>(const DeviceMatrix<const T>& matrix) {
    std::vector<T> host(static_cast<std::size_t>(matrix.rows * matrix.cols));
    copy_to_host<T>(matrix, MatrixView<T>(host.data(), matrix.rows, matrix.cols), stream);
    std::vector<float> floats;
    for (const T value : host) floats.push_back(static_cast<float>(value));
    return floats;
  });
}

}  // namespace serrate
