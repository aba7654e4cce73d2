#include "src/embedding/init_weights.h"

#include <algorithm>
#include <cmath>

#include "serrate/random.h"

namespace serrate {
namespace {

constexpr std::int64_t kLanes = 4;  // values of one Philox call

// FNV-1a: the stream of a table is its name, so adding a table does not change the others.
std::uint32_t stream_of(const std::string& name) {
  std::uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

struct Initializer {
  std::uint64_t seed;
  std::uint32_t stream;
  std::int64_t calls_per_row;
  float scale;

  // Columns [begin, end) of a row.
  void fill(std::int64_t row, std::int64_t begin, std::int64_t end, float* out) const {
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
        out[column - begin] = scale * (static_cast<float>(fraction) * 0x1.0p-23f);
      }
    }
  }
};

}  // namespace

Buffer<float> initial_rows(const EmbeddingTable& table, const Shard& shard, std::int64_t row_size,
                           std::uint64_t seed, const Stream& stream) {
  const float scale = table.init_scale > 0 ? table.init_scale
                                           : 1.0f / std::sqrt(static_cast<float>(table.num_rows));
  const Initializer init{seed, stream_of(table.name), (table.dim + kLanes - 1) / kLanes, scale};
  Buffer<float> all(shard.num_rows() * row_size, stream);
  // Made on the host a piece at a time, so that no second copy of a large table is needed.
  const std::int64_t piece = std::max<std::int64_t>(1, (std::int64_t{1} << 18) / row_size);
  std::vector<float> values(std::min(piece, shard.num_rows()) * row_size);
  for (std::int64_t first = 0; first < shard.num_rows(); first += piece) {
    const std::int64_t rows = std::min(piece, shard.num_rows() - first);
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
    for (std::int64_t r = 0; r < rows; ++r) {
      init.fill(shard.row_begin + first + r, shard.column_begin, shard.column_end,
                values.data() + r * row_size);
    }
    copy_from_host(std::span<const float>(values).first(rows * row_size),
                   all.span().subspan(first * row_size, rows * row_size), stream);
  }
  return all;
}

}  // namespace serrate
