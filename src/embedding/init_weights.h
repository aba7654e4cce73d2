#pragma once

#include "serrate/buffer.h"
#include "serrate/embedding_table.h"
#include "serrate/sharding_plan.h"

namespace serrate {

/// What a table's random numbers go by, beside the seed: its name, so that adding a table does not
/// change the others.
std::uint32_t random_stream(const EmbeddingTable& table);

/// Rows of `row_size` floats: the shard's part of a table that is uniform in [-init_scale,
/// init_scale), then zeros. The weight at (row, column) is a function of seed, table name, row and
/// column alone, whatever the plan.
Buffer<float> initial_rows(const EmbeddingTable& table, const Shard& shard, std::int64_t row_size,
                           std::uint64_t seed, const Stream& stream);
/// The bits of the same weights, rounded to the table's type of 16 bits: the nearest, halves to
/// even.
Buffer<std::uint16_t> initial_rounded_rows(const EmbeddingTable& table, const Shard& shard,
                                           std::uint64_t seed, const Stream& stream);

}  // namespace serrate
