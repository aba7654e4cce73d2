#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

namespace serrate {

/// A row-major matrix that somebody else owns: row r begins at data + r * stride.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  ///< elements from one row to the next, at least cols

  MatrixView() = default;
  MatrixView(T* data_, std::int64_t rows_, std::int64_t cols_, std::int64_t stride_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_) {}
  MatrixView(T* data_, std::int64_t rows_, std::int64_t cols_)
      : MatrixView(data_, rows_, cols_, cols_) {}
  /// A const view of the same matrix, as from span<T> to span<const T>.
  template <typename U>
    requires(std::is_same_v<T, const U>)
  MatrixView(const MatrixView<U>& other)  // NOLINT: implicit
      : MatrixView(other.data, other.rows, other.cols, other.stride) {}

  T* row(std::int64_t r) const { return data + r * stride; }
  MatrixView columns(std::int64_t begin, std::int64_t end) const {
    return {data + begin, rows, end - begin, stride};
  }
  MatrixView middle_rows(std::int64_t begin, std::int64_t end) const {
    return {row(begin), end - begin, cols, stride};
  }
};

}  // namespace serrate
