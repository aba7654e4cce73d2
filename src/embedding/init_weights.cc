#include "src/embedding/init_weights.h"

#include <algorithm>
#include <cmath>

#include "serrate/random.h"

namespace serrate {
namespace {

constexpr std::int64_t kLanes = 4;  // values of one Philox call

float stored(float value) {
  return value;
}
template <typename T>
std::uint16_t stored(T value) {
  return value.bits;
}
template <typename T>
using Stored = decltype(stored(T()));

struct Initializer {
  std::uint64_t seed;
  std::uint32_t stream;
  std::int64_t calls_per_row;
  float scale;

  // Columns [begin, end) of a row, rounded to T.
  template <typename T>
  void fill(std::int64_t row, std::int64_t begin, std::int64_t end, Stored<T>* out) const {
    for (std::int64_t call = begin / kLanes; call * kLanes < end; ++call) {
      const auto index = static_cast<std::uint64_t>(row * calls_per_row + call);
      const auto bits =
          philox4x32({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                      stream, static_cast<std::uint32_t>(RandomUse::kInit)},
                     {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        const std::int64_t column = call * kLanes + lane;
        if (column < begin || column >= end) continue;
        // The upper 24 bits, as a signed fraction: exact in float, in [-1, 1).
        const auto fraction = static_cast<std::int32_t>(bits[lane] >> 8) - (1 << 23);
        out[column - begin] = stored(T(scale * (static_cast<float>(fraction) * 0x1.0p-23f)));
      }
    }
  }
};

// Made on the host a piece at a time, so that no second copy of a large table is needed.
template <typename T>
Buffer<Stored<T>> initial_values(const EmbeddingTable& table, const Shard& shard,
                                 std::int64_t row_size, std::uint64_t seed, const Stream& stream) {
  const float scale = table.init_scale > 0 ? table.init_scale
                                           : 1.0f / std::sqrt(static_cast<float>(table.num_rows));
  const Initializer init{seed, random_stream(table), (table.dim + kLanes - 1) / kLanes, scale};
  Buffer<Stored<T>> all(shard.num_rows() * row_size, stream);
  const std::int64_t piece = std::max<std::int64_t>(1, (std::int64_t{1} << 18) / row_size);
  std::vector<Stored<T>> values(std::min(piece, shard.num_rows()) * row_size);
  for (std::int64_t first = 0; first < shard.num_rows(); first += piece) {
    const std::int64_t rows = std::min(piece, shard.num_rows() - first);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
    for (std::int64_t r = 0; r < rows; ++r) {
      init.fill<T>(shard.row_begin + first + r, shard.column_begin, shard.column_end,
                   values.data() + r * row_size);
    }
    copy_from_host(std::span<const Stored<T>>(values).first(rows * row_size),
                   all.span().subspan(first * row_size, rows * row_size), stream);
  }
  return all;
}

}  // namespace

// FNV-1a.
std::uint32_t random_stream(const EmbeddingTable& table) {
  std::uint32_t hash = 2166136261u;
  for (const char c : table.name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

Buffer<float> initial_rows(const EmbeddingTable& table, const Shard& shard, std::int64_t row_size,
                           std::uint64_t seed, const Stream& stream) {
  return initial_values<float>(table, shard, row_size, seed, stream);
}

Buffer<std::uint16_t> initial_rounded_rows(const EmbeddingTable& table, const Shard& shard,
                                           std::uint64_t seed, const Stream& stream) {
  const std::int64_t columns = shard.num_columns();
  if (table.data_type == DataType::kFloat16) {
    return initial_values<Float16>(table, shard, columns, seed, stream);
  }
  return initial_values<BFloat16>(table, shard, columns, seed, stream);
}

}  // namespace serrate
