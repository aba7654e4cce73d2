#include "src/embedding/init_weights.h"

#include <cmath>

#include "serrate/kernels/random_rows.h"

namespace serrate {
namespace {

void draw(const OutputMatrix& rows, const EmbeddingTable& table, const Shard& shard,
          std::uint64_t seed, const Stream& stream) {
  const float scale = table.init_scale > 0 ? table.init_scale
                                           : 1.0f / std::sqrt(static_cast<float>(table.num_rows));
  random_rows({.rows = rows,
               .first_row = shard.row_begin,
               .first_column = shard.column_begin,
               .table_columns = table.dim,
               .scale = scale,
               .seed = seed,
               .stream = random_stream(table)},
              stream);
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
  Buffer<float> all(shard.num_rows() * row_size, stream);
  if (row_size > shard.num_columns()) fill_zero(all.span(), stream);
  draw(all.matrix(shard.num_rows(), row_size).columns(0, shard.num_columns()), table, shard, seed,
       stream);
  return all;
}

Buffer<std::uint16_t> initial_rounded_rows(const EmbeddingTable& table, const Shard& shard,
                                           std::uint64_t seed, const Stream& stream) {
  Buffer<std::uint16_t> all(shard.num_rows() * shard.num_columns(), stream);
  draw({all.device_data(), table.data_type, shard.num_rows(), shard.num_columns()}, table, shard,
       seed, stream);
  return all;
}

}  // namespace serrate
