#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "serrate/data_type.h"
#include "serrate/device_span.h"
#include "serrate/error.h"

namespace serrate {

/// A DeviceMatrix of any type.
template <typename Void>
class AnyMatrix {
  static_assert(std::is_void_v<Void>);
  template <typename T>
  using Element = std::conditional_t<std::is_const_v<Void>, const T, T>;

 public:
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  ///< elements from one row to the next
  DataType type = DataType::kFloat32;

  constexpr AnyMatrix() = default;
  /// Row after row.
  constexpr AnyMatrix(Void* device_data, DataType type_, std::int64_t rows_, std::int64_t cols_)
      : rows(rows_), cols(cols_), stride(cols_), type(type_), data_(device_data) {}
  template <typename T>
    requires std::is_convertible_v<T*, Void*>
  constexpr AnyMatrix(const DeviceMatrix<T>& m)  // NOLINT: implicit
      : rows(m.rows),
        cols(m.cols),
        stride(m.stride),
        type(data_type_of<T>()),
        data_(m.device_data()) {}
  /// A row.
  template <typename T>
    requires std::is_convertible_v<T*, Void*>
  constexpr AnyMatrix(const DeviceSpan<T>& row)  // NOLINT: implicit
      : AnyMatrix(row.device_data(), data_type_of<T>(), 1, static_cast<std::int64_t>(row.size())) {}
  /// A const view of the same matrix.
  template <typename OtherVoid>
    requires(std::is_const_v<Void> && !std::is_const_v<OtherVoid>)
  constexpr AnyMatrix(const AnyMatrix<OtherVoid>& m)  // NOLINT: implicit
      : rows(m.rows), cols(m.cols), stride(m.stride), type(m.type), data_(m.device_data()) {}

  /// As DeviceMatrix::device_data().
  constexpr Void* device_data() const { return data_; }
  constexpr bool has_data() const { return data_ != nullptr; }
  constexpr AnyMatrix columns(std::int64_t begin, std::int64_t end) const {
    check(0 <= begin && begin <= end && end <= cols,
          "columns of a matrix are out of range (they end after they begin, within its cols)");
    AnyMatrix result = *this;
    using Byte = Element<std::byte>;
    result.data_ = static_cast<Byte*>(data_) + begin * size_of(type);
    result.cols = end - begin;
    return result;
  }
  constexpr AnyMatrix middle_rows(std::int64_t begin, std::int64_t end) const {
    check(0 <= begin && begin <= end && end <= rows,
          "rows of a matrix are out of range (they end after they begin, within its rows)");
    AnyMatrix result = *this;
    using Byte = Element<std::byte>;
    result.data_ = static_cast<Byte*>(data_) + begin * stride * size_of(type);
    result.rows = end - begin;
    return result;
  }
  /// Throws Error if the elements are of another type.
  template <typename T>
  constexpr DeviceMatrix<Element<T>> as() const {
    if (type != data_type_of<T>()) {
      throw Error("a matrix of " + to_string(type) + " is taken as one of " +
                  to_string(data_type_of<T>()) +
                  " (as() converts nothing): ask for its type, or call with_any_elements()");
    }
    return {static_cast<Element<T>*>(data_), rows, cols, stride};
  }

 private:
  Void* data_ = nullptr;
};
using InputMatrix = AnyMatrix<const void>;
using OutputMatrix = AnyMatrix<void>;

/// Calls f with the matrix as a DeviceMatrix of its elements' type, float32 or bfloat16.
template <typename Void, typename F>
decltype(auto) with_elements(const AnyMatrix<Void>& matrix, F&& f) {
  if (matrix.type == DataType::kBFloat16) return f(matrix.template as<BFloat16>());
  return f(matrix.template as<float>());
}

/// The same with matrices of any type, such as tables.
template <typename Void, typename F>
decltype(auto) with_any_elements(const AnyMatrix<Void>& matrix, F&& f) {
  if (matrix.type == DataType::kFloat16) return f(matrix.template as<Float16>());
  return with_elements(matrix, f);
}

/// For a CPU backend that takes float32 alone.
template <typename Void>
auto host_view(const AnyMatrix<Void>& matrix, const Stream& stream) {
  check(matrix.type == DataType::kFloat32, "on the CPU matrices are of float32");
  return host_view(matrix.template as<float>(), stream);
}

}  // namespace serrate
