#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/device_span.h"
#include "serrate/kernels/row_scores.h"
#include "serrate/sharded_embedding.h"

namespace serrate {

/// The queries of one rank; ranks may have different numbers of them, also none.
struct TopKQueries {
  DeviceMatrix<const float> queries;              // [n, dim], contiguous
  std::vector<std::int64_t> excluded;             // rows left out, query after query
  std::vector<std::int64_t> excluded_offsets{0};  // [n + 1]
};

/// So many rows of a shard are copied to a float32 matrix where they are in 16 bits or columns of
/// other ranks come.
constexpr std::int64_t kRowsScoredAtOnce = 8192;

/// The k rows of `table` with the highest query . row for each query of this rank, best first, ties
/// by the lower row: [n * k] row numbers, -1 when there are fewer. Every rank scores the rows it
/// holds, or the first columns of, to which the other columns come. A score's bits depend on query
/// and row alone (row_scores), so the result does not depend on ranks, threads or plan.
std::vector<std::int64_t> distributed_top_k(ShardedEmbedding& embedding, const std::string& table,
                                            const TopKQueries& queries, std::int64_t k,
                                            ScoreBy score_by, Communicator& communicator,
                                            const Stream& stream);

}  // namespace serrate
