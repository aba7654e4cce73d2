#include "src/evaluate/distributed_top_k.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "serrate/error.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/top_k.h"

namespace serrate {
namespace {

/// A rectangle of the table.
struct ScoredShard {
  Shard shard;
  bool first_columns = false;  // its rank scores the row block
  int home = 0;                // the rank that does
  InputMatrix weights;         // empty when another rank holds it
};

/// The shards of a table; of a replicated one, an equal run of rows for each rank.
std::vector<ScoredShard> scored_shards(ShardedEmbedding& embedding, const std::string& table,
                                       int rank, int world_size) {
  const TableSharding& sharding = sharding_of(embedding.plan(), table);
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
      scored.push_back(
          {.shard = shard, .first_columns = shard.column_begin == 0, .home = home, .weights = {}});
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
  Buffer<std::int64_t> excluded, excluded_offsets;
  std::int64_t size() const { return excluded_offsets.size() - 1; }
};

AllQueries gather_queries(const TopKQueries& mine, std::int64_t dim, Communicator& communicator,
                          const Stream& stream) {
  AllQueries all;
  all.counts = communicator.gather_int64("top_k counts", mine.queries.rows);
  all.rows.resize_discard(std::reduce(all.counts.begin(), all.counts.end()) * dim, stream);
  communicator.all_gather<float>("top_k queries", mine.queries.flat(),
                                 {all.rows.span(), all.counts}, dim, stream);

  std::vector<std::int64_t> lengths;
  for (std::size_t i = 0; i + 1 < mine.excluded_offsets.size(); ++i) {
    lengths.push_back(mine.excluded_offsets[i + 1] - mine.excluded_offsets[i]);
  }
  const auto all_lengths = communicator.gather<std::int64_t>("top_k exclusion lengths", lengths);
  std::vector<std::int64_t> offsets{0};
  for (const std::int64_t length : all_lengths.values) offsets.push_back(offsets.back() + length);
  all.excluded_offsets = {offsets, stream};
  all.excluded = {communicator.gather<std::int64_t>("top_k exclusions", mine.excluded).values,
                  stream};
  return all;
}

using Candidates = std::vector<std::pair<float, std::int64_t>>;  // score, row

std::int64_t rows_at(const ScoredShard& s, std::int64_t begin) {
  return std::clamp<std::int64_t>(s.shard.num_rows() - begin, 0, kRowsScoredAtOnce);
}

/// Copies rows [begin, end) of a shard, as float32: each is a bag of its own.
void copy_rows(const ScoredShard& s, std::int64_t begin, std::int64_t end, DeviceMatrix<float> to,
               const Stream& stream) {
  const InputMatrix rows = s.weights.middle_rows(begin, end);
  if (rows.type == DataType::kFloat32) return copy_matrix(rows, to, stream);
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(rows.rows + 1));
  std::iota(numbers.begin(), numbers.end(), 0);
  const Buffer<std::int64_t> offsets(numbers, stream);
  const LookupSegment segment{.table = rows,
                              .indices = offsets.span().first(numbers.size() - 1),
                              .offsets = offsets.span(),
                              .weights = {},
                              .output = to};
  embedding_lookup({&segment, 1}, stream);
}

/// The columns of other ranks for the rows from `begin` on of the blocks that this rank is home to.
struct OtherColumns {
  Buffer<float> values;
  std::vector<std::int64_t> next;  // by rank: where the rows of its next shard are
};

OtherColumns exchange_columns(const std::vector<ScoredShard>& shards, std::int64_t begin,
                              Communicator& communicator, const Stream& stream) {
  std::vector<std::int64_t> send_counts(communicator.size(), 0), receive_counts = send_counts;
  for (const ScoredShard& s : shards) {
    if (s.home == s.shard.rank) continue;
    const std::int64_t values = rows_at(s, begin) * s.shard.num_columns();
    if (s.shard.rank == communicator.rank()) send_counts[s.home] += values;
    if (s.home == communicator.rank()) receive_counts[s.shard.rank] += values;
  }
  Buffer<float> send(std::reduce(send_counts.begin(), send_counts.end()), stream);
  std::vector<std::int64_t> next(send_counts.size(), 0);  // by rank: where its next rows go
  std::partial_sum(send_counts.begin(), send_counts.end() - 1, next.begin() + 1);
  for (const ScoredShard& s : shards) {
    const std::int64_t rows = rows_at(s, begin);
    if (s.shard.rank != communicator.rank() || s.home == s.shard.rank || rows == 0) continue;
    const DeviceMatrix<float> to(send.span().subspan(next[s.home]), rows, s.shard.num_columns());
    copy_rows(s, begin, begin + rows, to, stream);
    next[s.home] += to.rows * to.cols;
  }
  OtherColumns received;
  received.values.resize_discard(std::reduce(receive_counts.begin(), receive_counts.end()), stream);
  communicator.all_to_all<float>("top_k columns", {send.span(), send_counts},
                                 {received.values.span(), receive_counts}, 1, stream);
  received.next.assign(receive_counts.size(), 0);
  std::partial_sum(receive_counts.begin(), receive_counts.end() - 1, received.next.begin() + 1);
  return received;
}

void keep_best(DeviceMatrix<const float> scores, std::int64_t first_row, const AllQueries& all,
               std::int64_t k, std::vector<Candidates>& found, const Stream& stream) {
  Buffer<float> best_scores(all.size() * k, stream);
  Buffer<std::int64_t> best_ids(all.size() * k, stream);
  top_k({.scores = scores,
         .first_id = first_row,
         .excluded = all.excluded.span(),
         .excluded_offsets = all.excluded_offsets.span(),
         .best_scores = best_scores.matrix(all.size(), k),
         .best_ids = best_ids.matrix(all.size(), k)},
        stream);
  const std::vector<float> of_best = best_scores.to_host(stream);
  const std::vector<std::int64_t> best = best_ids.to_host(stream);
  for (std::int64_t i = 0; i < all.size() * k; ++i) {
    if (std::isnan(of_best[i])) {
      throw Error(
          fmt::format("top_k: row {} has a score that is not a number (has the training "
                      "diverged?): try a lower learning rate",
                      i / k));
    }
    if (best[i] >= 0) found[i / k].emplace_back(of_best[i], best[i]);
  }
}

/// Scores the rows from `begin` on that this rank is home to, and keeps the k best of each query.
void rank_rows(const std::vector<ScoredShard>& shards, std::int64_t begin, OtherColumns received,
               const AllQueries& all, std::int64_t dim, std::int64_t k, ScoreBy score_by, int rank,
               std::vector<Candidates>& found, const Stream& stream) {
  const DeviceMatrix<const float> queries = all.rows.matrix(all.size(), dim);
  Buffer<float> joined, scores;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const ScoredShard& first = shards[i];
    const std::int64_t num_rows = rows_at(first, begin);
    if (!first.first_columns || first.home != rank || num_rows == 0) continue;
    DeviceMatrix<const float> rows;
    if (first.shard.num_columns() == dim && first.weights.type == DataType::kFloat32) {
      rows = first.weights.as<float>().middle_rows(begin, begin + num_rows);
    } else {
      const DeviceMatrix<float> whole(joined.resize_discard(num_rows * dim, stream), num_rows, dim);
      for (std::size_t j = i; j == i || (j < shards.size() && !shards[j].first_columns); ++j) {
        const ScoredShard& s = shards[j];
        const DeviceMatrix<float> to = whole.columns(s.shard.column_begin, s.shard.column_end);
        if (s.shard.rank == rank) {
          copy_rows(s, begin, begin + num_rows, to, stream);
        } else {
          std::int64_t& next = received.next[s.shard.rank];
          const DeviceMatrix<const float> from(received.values.device_data() + next, num_rows,
                                               to.cols);
          copy_matrix(from, to, stream);
          next += num_rows * to.cols;
        }
      }
      rows = whole;
    }
    const std::int64_t stride = (num_rows + kRowScoresRoom - 1) / kRowScoresRoom * kRowScoresRoom;
    const DeviceSpan<float> room = scores.resize_discard(all.size() * stride, stream);
    const DeviceMatrix<float> view(room.device_data(), all.size(), num_rows, stride);
    row_scores({.queries = queries, .rows = rows, .score_by = score_by, .scores = view}, stream);
    keep_best(view, first.shard.row_begin + begin, all, k, found, stream);
  }
}

void sort_best_first(Candidates& candidates) {
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
}

/// The candidates of all ranks for this rank's queries, merged: [n * k] ids.
std::vector<std::int64_t> merge(std::vector<Candidates>& found, const AllQueries& all,
                                std::int64_t k, Communicator& communicator) {
  std::vector<float> scores;
  std::vector<std::int64_t> ids;
  for (Candidates& candidates : found) {
    sort_best_first(candidates);
    candidates.resize(k, {-std::numeric_limits<float>::infinity(), -1});
    for (const auto& [score, id] : candidates) {
      scores.push_back(score);
      ids.push_back(id);
    }
  }
  std::vector<std::int64_t> counts;
  for (const std::int64_t count : all.counts) counts.push_back(count * k);
  const auto my_scores = communicator.exchange<float>("top_k scores", scores, counts).values;
  const auto my_ids = communicator.exchange<std::int64_t>("top_k ids", ids, counts).values;

  const std::int64_t n = all.counts[communicator.rank()];
  std::vector<std::int64_t> best;
  for (std::int64_t q = 0; q < n; ++q) {
    Candidates row;
    for (int r = 0; r < communicator.size(); ++r) {
      for (std::int64_t i = (r * n + q) * k; i < (r * n + q + 1) * k; ++i) {
        if (my_ids[i] >= 0) row.emplace_back(my_scores[i], my_ids[i]);
      }
    }
    sort_best_first(row);
    row.resize(k, {0, -1});
    for (const auto& candidate : row) best.push_back(candidate.second);
  }
  return best;
}

}  // namespace

std::vector<std::int64_t> distributed_top_k(ShardedEmbedding& embedding, const std::string& table,
                                            const TopKQueries& queries, std::int64_t k,
                                            ScoreBy score_by, Communicator& communicator,
                                            const Stream& stream) {
  const std::int64_t dim = queries.queries.cols;
  const AllQueries all = gather_queries(queries, dim, communicator, stream);
  const auto shards = scored_shards(embedding, table, communicator.rank(), communicator.size());
  std::int64_t most_rows = 0;
  for (const ScoredShard& s : shards) most_rows = std::max(most_rows, s.shard.num_rows());

  std::vector<Candidates> found(all.size());
  const bool column_cut =
      std::ranges::any_of(shards, [](const ScoredShard& s) { return !s.first_columns; });
  for (std::int64_t begin = 0; begin < most_rows; begin += kRowsScoredAtOnce) {
    OtherColumns others;
    if (column_cut) others = exchange_columns(shards, begin, communicator, stream);
    rank_rows(shards, begin, std::move(others), all, dim, k, score_by, communicator.rank(), found,
              stream);
  }
  return merge(found, all, k, communicator);
}

}  // namespace serrate
