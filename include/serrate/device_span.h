#pragma once

#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>

#include "serrate/error.h"
#include "serrate/matrix_view.h"
#include "serrate/stream.h"

// Memory of a device that somebody else owns. Host code can hand it on, cut it and copy it, but not
// read or write an element: what tries to does not compile. std::span and MatrixView are the
// host's.

namespace serrate {

/// `size()` values of T in the memory of a device.
template <typename T>
class DeviceSpan {
 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;

  constexpr DeviceSpan() = default;
  constexpr DeviceSpan(T* device_data, std::size_t size) : data_(device_data), size_(size) {}
  /// A const view of the same values, as from std::span<T> to std::span<const T>.
  template <typename U>
    requires(std::is_same_v<T, const U>)
  constexpr DeviceSpan(DeviceSpan<U> other)  // NOLINT: implicit
      : DeviceSpan(other.device_data(), other.size()) {}

  /// For launches, copies and libraries: nothing on the host may follow this pointer.
  constexpr T* device_data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr std::size_t size_bytes() const { return size_ * sizeof(T); }
  constexpr bool empty() const { return size_ == 0; }

  constexpr DeviceSpan first(std::size_t count) const { return {data_, count}; }
  constexpr DeviceSpan last(std::size_t count) const { return {data_ + (size_ - count), count}; }
  constexpr DeviceSpan subspan(std::size_t offset) const {
    return {data_ + offset, size_ - offset};
  }
  constexpr DeviceSpan subspan(std::size_t offset, std::size_t count) const {
    return {data_ + offset, count};
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A row-major matrix in the memory of a device: row r begins r * stride values behind its first.
template <typename T>
class DeviceMatrix {
 public:
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  ///< elements from one row to the next, at least cols

  constexpr DeviceMatrix() = default;
  constexpr DeviceMatrix(T* device_data, std::int64_t rows_, std::int64_t cols_,
                         std::int64_t stride_)
      : rows(rows_), cols(cols_), stride(stride_), data_(device_data) {}
  constexpr DeviceMatrix(T* device_data, std::int64_t rows_, std::int64_t cols_)
      : DeviceMatrix(device_data, rows_, cols_, cols_) {}
  /// The first rows * cols values, row after row.
  constexpr DeviceMatrix(DeviceSpan<T> values, std::int64_t rows_, std::int64_t cols_)
      : DeviceMatrix(values.device_data(), rows_, cols_, cols_) {}
  /// A const view of the same matrix.
  template <typename U>
    requires(std::is_same_v<T, const U>)
  constexpr DeviceMatrix(const DeviceMatrix<U>& other)  // NOLINT: implicit
      : DeviceMatrix(other.device_data(), other.rows, other.cols, other.stride) {}

  /// As DeviceSpan::device_data(): of the first row.
  constexpr T* device_data() const { return data_; }
  /// Optional arguments that are left out have none.
  constexpr bool has_data() const { return data_ != nullptr; }
  constexpr DeviceMatrix columns(std::int64_t begin, std::int64_t end) const {
    return {data_ + begin, rows, end - begin, stride};
  }
  constexpr DeviceMatrix middle_rows(std::int64_t begin, std::int64_t end) const {
    return {data_ + begin * stride, end - begin, cols, stride};
  }
  constexpr DeviceSpan<T> row(std::int64_t r) const {
    return {data_ + r * stride, static_cast<std::size_t>(cols)};
  }
  /// All values; a row has to begin where the one before it ends.
  constexpr DeviceSpan<T> flat() const {
    check(stride == cols || rows <= 1, "the rows of a flat matrix follow one another");
    return {data_, static_cast<std::size_t>(rows * cols)};
  }

 private:
  T* data_ = nullptr;
};

/// Host memory as the argument of an op whose stream is a CPU's: there it is device memory.
template <typename T>
constexpr DeviceSpan<T> on_cpu(std::span<T> host) {
  return {host.data(), host.size()};
}
template <std::ranges::contiguous_range Range>
constexpr auto on_cpu(Range& host) {
  return on_cpu(std::span(host));
}
template <typename T>
constexpr DeviceMatrix<T> on_cpu(const MatrixView<T>& host) {
  return {host.data, host.rows, host.cols, host.stride};
}

/// Throws Error unless the stream is a CPU's, so that its memory is the host's.
inline void check_host_may_read(const Stream& stream) {
  if (stream.device().type == DeviceType::kCpu) return;
  throw Error("the memory of " + to_string(stream.device()) + " was to be read on the host");
}

/// The elements of memory that a CPU's stream is about: what a CPU backend calls at its top.
template <typename T>
std::span<T> host_view(DeviceSpan<T> values, const Stream& stream) {
  check_host_may_read(stream);
  return {values.device_data(), values.size()};
}
template <typename T>
MatrixView<T> host_view(const DeviceMatrix<T>& matrix, const Stream& stream) {
  check_host_may_read(stream);
  return {matrix.device_data(), matrix.rows, matrix.cols, matrix.stride};
}

}  // namespace serrate
