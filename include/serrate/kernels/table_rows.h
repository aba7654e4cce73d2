#pragma once

#include <cstdint>
#include <type_traits>

#include "serrate/bfloat16.h"
#include "serrate/device_span.h"
#include "serrate/float16.h"

namespace serrate {

/// How the weights of a table are stored. Arithmetic is in fp32.
enum class DataType { kFp32, kFp16, kBf16 };

template <typename T>
inline constexpr DataType kDataTypeOf = std::is_same_v<T, float>     ? DataType::kFp32
                                        : std::is_same_v<T, Float16> ? DataType::kFp16
                                                                     : DataType::kBf16;

constexpr std::int64_t size_of(DataType type) {
  return type == DataType::kFp32 ? 4 : 2;
}

/// A DeviceMatrix of any of these types: the rows of a table or of a shard of it.
template <typename Void>
struct AnyRows {
  static_assert(std::is_void_v<Void>);

  Void* device_data = nullptr;  ///< as DeviceMatrix::device_data()
  DataType type = DataType::kFp32;
  std::int64_t rows = 0, cols = 0;
  std::int64_t stride = 0;  ///< elements from one row to the next, at least cols

  constexpr AnyRows() = default;
  template <typename T>
    requires std::is_convertible_v<T*, Void*>
  constexpr AnyRows(const DeviceMatrix<T>& m)  // NOLINT: implicit
      : device_data(m.device_data()),
        type(kDataTypeOf<std::remove_const_t<T>>),
        rows(m.rows),
        cols(m.cols),
        stride(m.stride) {
    using Value = std::remove_const_t<T>;
    static_assert(std::is_same_v<Value, float> || std::is_same_v<Value, Float16> ||
                  std::is_same_v<Value, BFloat16>);
  }
  /// The same rows, const.
  template <typename OtherVoid>
    requires(std::is_const_v<Void> && !std::is_const_v<OtherVoid>)
  constexpr AnyRows(const AnyRows<OtherVoid>& other)  // NOLINT: implicit
      : device_data(other.device_data),
        type(other.type),
        rows(other.rows),
        cols(other.cols),
        stride(other.stride) {}
};
using InputRows = AnyRows<const void>;
using TableRows = AnyRows<void>;

}  // namespace serrate
