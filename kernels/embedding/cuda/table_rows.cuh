#pragma once

#include <cuda_fp16.h>

#include "kernels/cuda/row_vector.cuh"
#include "kernels/embedding/stochastic_rounding.h"
#include "serrate/any_matrix.h"

// Rows of tables of any type, as one lane reads and writes some of their columns.
namespace serrate {

template <class Value, int kWidth>
struct alignas(kWidth * sizeof(Value)) StoredVector {
  std::uint16_t bits[kWidth];
};

__device__ inline float value_of(std::uint16_t bits, BFloat16) {
  return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
}
__device__ inline float value_of(std::uint16_t bits, Float16) {
  return __half2float(__ushort_as_half(bits));
}

template <int kWidth>
__device__ RowVector<kWidth> load_values(const float* from) {
  return load<kWidth>(from);
}
template <int kWidth, class Value>
__device__ RowVector<kWidth> load_values(const Value* from) {
  const auto stored = *reinterpret_cast<const StoredVector<Value, kWidth>*>(from);
  RowVector<kWidth> values;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) values.value[k] = value_of(stored.bits[k], Value());
  return values;
}

/// What rounds a shard: PhiloxDraw's key and site, and where the shard begins.
struct RoundingDraw {
  std::array<std::uint32_t, 2> key;
  std::uint32_t site;
  std::int64_t row_begin, column_begin;

  /// The random words of four columns of the shard, or of those that `column` is one of.
  __device__ std::array<std::uint32_t, 4> words(std::int64_t row, std::int64_t column) const {
    const auto of_table = static_cast<std::uint64_t>(row_begin + row);
    return philox4x32(
        {static_cast<std::uint32_t>(of_table), static_cast<std::uint32_t>(of_table >> 32),
         static_cast<std::uint32_t>((column_begin + column) / 4), site},
        key);
  }
};

inline RoundingDraw rounding_draw_of(const EmbeddingUpdate& args) {
  const PhiloxDraw draw = rounding_draw(args.rounding, args.step);
  return {draw.key, draw.site, args.rounding.row_begin, args.rounding.column_begin};
}

__device__ inline std::uint16_t round_value(float x, std::uint32_t random, BFloat16) {
  return round_to_bfloat16(__float_as_uint(x), random);
}
__device__ inline std::uint16_t round_value(float x, std::uint32_t random, Float16) {
  return round_to_float16(__float_as_uint(x), random);
}

/// Columns c on of a row of the shard; four at once begin with a multiple of 4 of the table's.
template <int kWidth>
__device__ void store_values(const RowVector<kWidth>& values, const RoundingDraw&, std::int64_t,
                             std::int64_t c, float* row) {
  store(values, row + c);
}
template <int kWidth, class Value>
__device__ void store_values(const RowVector<kWidth>& values, const RoundingDraw& draw,
                             std::int64_t r, std::int64_t c, Value* row) {
  static_assert(kWidth == 1 || kWidth == 4);
  const std::array<std::uint32_t, 4> words = draw.words(r, c);
  StoredVector<Value, kWidth> stored;
  if constexpr (kWidth == 1) {
    stored.bits[0] = round_value(values.value[0], words[(draw.column_begin + c) % 4], Value());
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      stored.bits[k] = round_value(values.value[k], words[k], Value());
    }
  }
  *reinterpret_cast<StoredVector<Value, kWidth>*>(row + c) = stored;
}

}  // namespace serrate
