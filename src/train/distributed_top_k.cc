#include "src/train/distributed_top_k.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "serrate/kernels/linear.h"
#include "serrate/kernels/top_k.h"

namespace serrate {
namespace {

constexpr std::int64_t kRowsAtOnce = 8192;

/// A rectangle of the table that one rank scores.
struct ScoredShard {
  Shard shard;
  bool first_columns = false;     // this rank sums the row block's partial scores
  int home = 0;                   // the rank that does
  MatrixView<const float> weights;  // empty when another rank holds it
};

/// The shards of a table; of a replicated one, an equal run of rows for each rank.
std::vector<ScoredShard> scored_shards(ShardedEmbedding& embedding, const std::string& table,
                                       int rank, int world_size) {
  const auto& tables = embedding.plan().tables;
  const TableSharding& sharding = *std::find_if(
      tables.begin(), tables.end(), [&](const TableSharding& t) { return t.table == table; });
  std::vector<ScoredShard> scored;
  if (sharding.type == ShardingType::kDataParallel) {
    const Shard whole = sharding.shards.front();
    for (int r = 0; r < world_size; ++r) {
      Shard part = whole;
      part.rank = r;
      part.row_begin = whole.num_rows() * r / world_size;
      part.row_end = whole.num_rows() * (r + 1) / world_size;
      scored.push_back({.shard = part, .first_columns = true, .home = r, .weights = {}});
    }
  } else {
    int home = 0;
    for (const Shard& shard : sharding.shards) {
      if (shard.column_begin == 0) home = shard.rank;  // shards are ordered by row, then column
      scored.push_back({.shard = shard,
                        .first_columns = shard.column_begin == 0,
                        .home = home,
                        .weights = {}});
    }
  }
  for (const LocalShard& local : embedding.local_shards()) {
    if (local.table != table) continue;
    for (ScoredShard& s : scored) {
      if (s.shard.rank == rank && s.shard.row_begin >= local.shard.row_begin &&
          s.shard.row_end <= local.shard.row_end &&
          s.shard.column_begin == local.shard.column_begin) {
        const std::int64_t first = s.shard.row_begin - local.shard.row_begin;
        s.weights = local.weights.middle_rows(first, first + s.shard.num_rows());
      }
    }
  }
  return scored;
}

/// Every rank's queries and exclusions, rank after rank.
struct AllQueries {
  Buffer<float> rows;
  std::vector<std::int64_t> counts;  // of each rank
  std::vector<std::int64_t> excluded, excluded_offsets{0};
  std::int64_t size() const { return static_cast<std::int64_t>(excluded_offsets.size()) - 1; }
};

AllQueries gather_queries(const TopKQueries& mine, std::int64_t dim, Communicator& communicator,
                          const Stream& stream) {
  AllQueries all;
  const std::span<const float> rows(mine.queries.data,
                                    static_cast<std::size_t>(mine.queries.rows * dim));
  communicator.all_gather("top_k queries", rows, dim, all.rows, all.counts, stream);

  const Stream host;
  std::vector<std::int64_t> lengths;
  for (std::size_t i = 0; i + 1 < mine.excluded_offsets.size(); ++i) {
    lengths.push_back(mine.excluded_offsets[i + 1] - mine.excluded_offsets[i]);
  }
  Buffer<std::int64_t> all_lengths, excluded;
  std::vector<std::int64_t> counts;
  communicator.all_gather("top_k exclusion lengths", std::span<const std::int64_t>(lengths), 1,
                          all_lengths, counts, host);
  communicator.all_gather("top_k exclusions", std::span<const std::int64_t>(mine.excluded), 1,
                          excluded, counts, host);
  all.excluded = excluded.to_host(host);
  for (const std::int64_t length : all_lengths.span()) {
    all.excluded_offsets.push_back(all.excluded_offsets.back() + length);
  }
  return all;
}

/// The k best of one run of rows, for all queries.
struct Best {
  Buffer<float> scores;
  Buffer<std::int64_t> ids;
};

/// Scores of rows [begin, end) of a shard, one row of scores per query and a last one with the
/// squared lengths of the shard's part of the rows.
void score_rows(const ScoredShard& s, std::int64_t begin, std::int64_t end, const AllQueries& all,
                std::int64_t dim, MatrixView<float> scores, const Stream& stream) {
  const MatrixView<const float> queries{all.rows.data(), all.size(), dim};
  const MatrixView<const float> rows = s.weights.middle_rows(begin, end);
  linear_forward({.x = queries.columns(s.shard.column_begin, s.shard.column_end),
                  .weight = rows,
                  .bias = {},
                  .y = scores.middle_rows(0, all.size())},
                 stream);
  float* squares = scores.row(all.size());
  for (std::int64_t r = 0; r < rows.rows; ++r) {
    squares[r] = 0;
    for (std::int64_t c = 0; c < rows.cols; ++c) squares[r] += rows.row(r)[c] * rows.row(r)[c];
  }
}

void divide_by_lengths(MatrixView<float> scores) {
  const float* squares = scores.row(scores.rows - 1);
  for (std::int64_t q = 0; q + 1 < scores.rows; ++q) {
    for (std::int64_t r = 0; r < scores.cols; ++r) {
      scores.row(q)[r] /= std::max(std::sqrt(squares[r]), 1e-12f);
    }
  }
}

/// The candidates of all ranks for this rank's queries, merged: [n * k] ids.
std::vector<std::int64_t> merge(const std::vector<std::vector<std::pair<float, std::int64_t>>>& found,
                                const AllQueries& all, std::int64_t k, Communicator& communicator,
                                const Stream& host) {
  std::vector<float> scores;
  std::vector<std::int64_t> ids, counts;
  for (const auto& candidates : found) {
    for (std::int64_t i = 0; i < k; ++i) {
      const bool there = i < static_cast<std::int64_t>(candidates.size());
      scores.push_back(there ? candidates[i].first : -std::numeric_limits<float>::infinity());
      ids.push_back(there ? candidates[i].second : -1);
    }
  }
  Buffer<float> my_scores;
  Buffer<std::int64_t> my_ids;
  communicator.all_to_all("top_k scores", std::span<const float>(scores), all.counts, k, my_scores,
                          counts, host);
  communicator.all_to_all("top_k ids", std::span<const std::int64_t>(ids), all.counts, k, my_ids,
                          counts, host);
  const std::int64_t n = all.counts[communicator.rank()];
  std::vector<std::int64_t> best;
  std::vector<std::pair<float, std::int64_t>> row;
  for (std::int64_t q = 0; q < n; ++q) {
    row.clear();
    for (int r = 0; r < communicator.size(); ++r) {
      for (std::int64_t i = (r * n + q) * k; i < (r * n + q + 1) * k; ++i) {
        if (my_ids.span()[i] >= 0) row.emplace_back(-my_scores.span()[i], my_ids.span()[i]);
      }
    }
    std::sort(row.begin(), row.end());
    for (std::int64_t i = 0; i < k; ++i) {
      best.push_back(i < static_cast<std::int64_t>(row.size()) ? row[i].second : -1);
    }
  }
  return best;
}

}  // namespace

std::vector<std::int64_t> distributed_top_k(ShardedEmbedding& embedding, const std::string& table,
                                            const TopKQueries& queries, std::int64_t k,
                                            ScoreBy score_by, Communicator& communicator,
                                            const Stream& stream) {
  check(stream.device() == Device::cpu(), "distributed_top_k works on CPU streams");
  const std::int64_t dim = queries.queries.cols;
  const AllQueries all = gather_queries(queries, dim, communicator, stream);
  const auto shards = scored_shards(embedding, table, communicator.rank(), communicator.size());
  std::int64_t most_rows = 0;
  for (const ScoredShard& s : shards) most_rows = std::max(most_rows, s.shard.num_rows());

  std::vector<std::vector<std::pair<float, std::int64_t>>> found(all.size());
  const std::int64_t score_rows_count = all.size() + 1;
  for (std::int64_t begin = 0; begin < most_rows; begin += kRowsAtOnce) {
    // Partial scores go to the owner of the row block's first columns, in the order of shards.
    std::vector<std::vector<float>> to_rank(communicator.size());
    for (const ScoredShard& s : shards) {
      const std::int64_t end = std::min(begin + kRowsAtOnce, s.shard.num_rows());
      if (s.shard.rank != communicator.rank() || begin >= end) continue;
      std::vector<float>& part = to_rank[s.home];
      const std::size_t at = part.size();
      part.resize(at + static_cast<std::size_t>(score_rows_count * (end - begin)));
      score_rows(s, begin, end, all, dim, {part.data() + at, score_rows_count, end - begin}, stream);
    }
    std::vector<float> send;
    std::vector<std::int64_t> send_counts, receive_counts;
    for (const auto& part : to_rank) {
      send.insert(send.end(), part.begin(), part.end());
      send_counts.push_back(static_cast<std::int64_t>(part.size()));
    }
    Buffer<float> received;
    communicator.all_to_all("top_k partial scores", std::span<const float>(send), send_counts, 1,
                            received, receive_counts, stream);

    // Add up the column blocks of each row block that ends here, then keep its k best.
    std::vector<std::int64_t> read(communicator.size(), 0);
    for (int r = 1; r < communicator.size(); ++r) read[r] = read[r - 1] + receive_counts[r - 1];
    std::vector<float> sums;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const ScoredShard& s = shards[i];
      const std::int64_t rows = std::min(begin + kRowsAtOnce, s.shard.num_rows()) - begin;
      if (s.home != communicator.rank() || rows <= 0) continue;
      const std::int64_t size = score_rows_count * rows;
      const float* part = received.data() + read[s.shard.rank];
      read[s.shard.rank] += size;
      if (s.first_columns) {
        sums.assign(part, part + size);
      } else {
        for (std::int64_t e = 0; e < size; ++e) sums[e] += part[e];
      }
      if (i + 1 < shards.size() && !shards[i + 1].first_columns) continue;

      const MatrixView<float> scores{sums.data(), score_rows_count, rows};
      if (score_by == ScoreBy::kCosine) divide_by_lengths(scores);
      Best best{{all.size() * k, stream}, {all.size() * k, stream}};
      top_k({.scores = scores.middle_rows(0, all.size()),
             .first_id = s.shard.row_begin + begin,
             .excluded = all.excluded,
             .excluded_offsets = all.excluded_offsets,
             .best_scores = {best.scores.data(), all.size(), k},
             .best_ids = {best.ids.data(), all.size(), k}},
            stream);
      for (std::int64_t q = 0; q < all.size(); ++q) {
        for (std::int64_t j = q * k; j < (q + 1) * k; ++j) {
          if (best.ids.span()[j] >= 0) found[q].emplace_back(best.scores.span()[j], best.ids.span()[j]);
        }
      }
    }
  }
  for (auto& candidates : found) {
    std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    });
    if (static_cast<std::int64_t>(candidates.size()) > k) candidates.resize(k);
  }
  return merge(found, all, k, communicator, stream);
}

}  // namespace serrate
