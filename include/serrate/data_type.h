#pragma once

#include <cstdint>
#include <string>
#include <type_traits>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"

namespace serrate {

/// How numbers are stored. Arithmetic is in float32; ops say which types they take.
enum class DataType { kFloat32, kFloat16, kBFloat16 };

template <typename T>
constexpr DataType data_type_of() {
  using Value = std::remove_const_t<T>;
  constexpr bool kIsFloat = std::is_same_v<Value, float>, kIsHalf = std::is_same_v<Value, Float16>;
  static_assert(kIsFloat || kIsHalf || std::is_same_v<Value, BFloat16>);
  return kIsFloat ? DataType::kFloat32 : kIsHalf ? DataType::kFloat16 : DataType::kBFloat16;
}

/// "fp32", "fp16", "bf16"; from_string throws Error (usage) otherwise.
std::string to_string(DataType type);
DataType data_type_from_string(const std::string& name);

constexpr std::int64_t size_of(DataType type) {
  return type == DataType::kFloat32 ? 4 : 2;
}

}  // namespace serrate
