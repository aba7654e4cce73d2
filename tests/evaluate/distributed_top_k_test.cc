#include "src/evaluate/distributed_top_k.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numeric>
#include <random>

#include "tests/support/devices.h"
#include "tests/support/on_host.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

constexpr std::int64_t kRows = 50, kDim = 8, kQueries = 5, kBest = 7;

/// Best rows by brute force in double.
std::vector<std::int64_t> reference(const std::vector<float>& rows, const float* query,
                                    const std::vector<std::int64_t>& excluded, ScoreBy score_by) {
  const std::int64_t num_rows = std::ssize(rows) / kDim;
  std::vector<double> scores(num_rows);
  for (std::int64_t r = 0; r < num_rows; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < kDim; ++c) {
      scores[r] += double{rows[r * kDim + c]} * query[c];
      squares += double{rows[r * kDim + c]} * rows[r * kDim + c];
    }
    if (score_by == ScoreBy::kCosine) scores[r] /= std::sqrt(squares);
  }
  std::vector<std::int64_t> order(num_rows);
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](std::int64_t r) {
    return std::find(excluded.begin(), excluded.end(), r) != excluded.end();
  });
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return scores[a] > scores[b]; });
  order.resize(kBest, -1);
  return order;
}

class DistributedTopKTest : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, DistributedTopKTest, testing::ValuesIn(test_devices()),
                         device_name);

/// The best rows of a table of random weights, for random queries that leave out some rows each.
void expect_brute_force(const EmbeddingTable& table, ShardingType type, int world_size,
                        const std::vector<std::vector<std::int64_t>>& excluded, ScoreBy score_by,
                        Device device) {
  SCOPED_TRACE(to_string(type) + " on " + std::to_string(world_size) + " in " +
               to_string(table.data_type));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> queries(kQueries * kDim);
  for (float& v : queries) v = normal(random);
  const int in_node = world_size % 2 == 0 ? 2 : 1;
  const ShardingPlan plan{.world_size = world_size,
                          .tables = {shard_table(table, type, world_size, 0, in_node)},
                          .ranks_per_node = in_node};
  std::vector<float> rows(table.num_rows * kDim);
  std::vector<std::int64_t> best(kQueries * kBest);
  std::mutex mutex;
  run_ranks(world_size, [&](Communicator& communicator) {
    const Stream stream(device);
    ShardedEmbedding embedding({table}, plan, {}, communicator, stream);
    // All queries are on the last rank but the first, which is on rank 0.
    const bool first = communicator.rank() == 0, last = communicator.rank() == world_size - 1;
    const std::int64_t begin = first ? 0 : 1, end = last ? kQueries : first ? 1 : begin;
    const Buffer<float> own(
        std::span<const float>(queries).subspan(begin * kDim, (end - begin) * kDim), stream);
    TopKQueries mine{.queries = own.matrix(end - begin, kDim), .excluded = {}};
    for (std::int64_t q = begin; q < end; ++q) {
      mine.excluded.insert(mine.excluded.end(), excluded[q].begin(), excluded[q].end());
      mine.excluded_offsets.push_back(std::ssize(mine.excluded));
    }
    const auto found =
        distributed_top_k(embedding, "item", mine, kBest, score_by, communicator, stream);
    const std::lock_guard lock(mutex);
    std::copy(found.begin(), found.end(), best.begin() + begin * kBest);
    for (const LocalShard& local : embedding.local_shards()) {
      const std::int64_t columns = local.weights.cols;
      const std::vector<float> weights = on_host(local.weights, stream);
      for (std::int64_t r = 0; r < local.weights.rows; ++r) {
        std::copy_n(weights.begin() + r * columns, columns,
                    rows.begin() + (local.shard.row_begin + r) * kDim + local.shard.column_begin);
      }
    }
  });
  for (std::int64_t q = 0; q < kQueries; ++q) {
    const std::vector<std::int64_t> found(best.begin() + q * kBest, best.begin() + (q + 1) * kBest);
    EXPECT_EQ(found, reference(rows, &queries[q * kDim], excluded[q], score_by)) << q;
  }
}

TEST_P(DistributedTopKTest, EqualsBruteForceUnderEverySharding) {
  // Query 2 leaves out all rows but three.
  std::vector<std::vector<std::int64_t>> excluded{{}, {0, 5, 49}, {}, {7}, {}};
  for (std::int64_t r = 3; r < kRows; ++r) excluded[2].push_back(r);
  EmbeddingTable table{
      .name = "item", .num_rows = kRows, .dim = kDim, .features = {"item"}, .init_scale = 1};
  constexpr DataType kDataTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};
  for (const ShardingType type :
       {ShardingType::kDataParallel, ShardingType::kTableWise, ShardingType::kRowWise,
        ShardingType::kColumnWise, ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
        ShardingType::kGrid}) {
    for (const int world_size : {1, 2, 3, 4}) {
      for (const ScoreBy score_by : {ScoreBy::kDotProduct, ScoreBy::kCosine}) {
        table.data_type = kDataTypes[(world_size + static_cast<int>(score_by)) % 3];
        expect_brute_force(table, type, world_size, excluded, score_by, GetParam());
      }
    }
  }
}

// Such rows are read in pieces: here a whole one and ten rows, the only ones of some queries.
TEST_P(DistributedTopKTest, ReadsRowsOf16BitsPieceByPiece) {
  if (GetParam().type != DeviceType::kCpu) GTEST_SKIP() << "the pieces are the CPU's, too";
  const EmbeddingTable table{.name = "item",
                             .num_rows = kRowsScoredAtOnce + 10,
                             .dim = kDim,
                             .features = {"item"},
                             .init_scale = 1,
                             .data_type = DataType::kBFloat16};
  std::vector<std::vector<std::int64_t>> excluded(kQueries);
  for (std::int64_t r = 0; r < kRowsScoredAtOnce; ++r) {
    for (const int query : {0, 2, 4}) excluded[query].push_back(r);
  }
  for (const ShardingType type : {ShardingType::kTableWise, ShardingType::kColumnWise}) {
    expect_brute_force(table, type, 2, excluded, ScoreBy::kDotProduct, GetParam());
  }
}

// All rows have the same values in other orders and the query is constant: scores differ by
// rounding alone, and whoever rounds otherwise finds other rows.
TEST_P(DistributedTopKTest, RoundingDoesNotDependOnRanksThreadsOrPlan) {
  constexpr std::int64_t kWide = 24, kMany = 700, kTaken = 40;
  const EmbeddingTable table{
      .name = "item", .num_rows = kMany, .dim = kWide, .features = {"item"}, .init_scale = 1};
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> value(kWide), rows;
  for (float& v : value) v = normal(random);
  for (std::int64_t r = 0; r < kMany; ++r) {
    std::ranges::shuffle(value, random);
    rows.insert(rows.end(), value.begin(), value.end());
  }
  const std::vector<float> query(kWide, 0.7f);
  const auto best = [&](ShardingType type, int world_size, int threads, ScoreBy score_by,
                        Device device) {
    const int in_node = world_size % 2 == 0 ? 2 : 1;
    const ShardingPlan plan{.world_size = world_size,
                            .tables = {shard_table(table, type, world_size, 0, in_node)},
                            .ranks_per_node = in_node};
    std::vector<std::int64_t> result;
    run_ranks(world_size, [&](Communicator& communicator) {
      const Stream stream(device, threads);
      ShardedEmbedding embedding({table}, plan, {}, communicator, stream);
      for (const LocalShard& local : embedding.local_shards()) {
        const Shard& s = local.shard;
        const MatrixView<const float> all(rows.data(), kMany, kWide);
        copy_from_host(
            all.middle_rows(s.row_begin, s.row_end).columns(s.column_begin, s.column_end),
            local.weights.as<float>(), stream);
      }
      const std::int64_t n = communicator.rank() == 0 ? 1 : 0;
      const Buffer<float> own(query, stream);
      TopKQueries mine{.queries = own.matrix(n, kWide), .excluded = {}};
      if (n > 0) mine.excluded_offsets.push_back(0);
      const auto found =
          distributed_top_k(embedding, "item", mine, kTaken, score_by, communicator, stream);
      if (n > 0) result = found;
    });
    return result;
  };
  for (const ScoreBy score_by : {ScoreBy::kDotProduct, ScoreBy::kCosine}) {
    const auto expected = best(ShardingType::kTableWise, 1, 1, score_by, GetParam());
    EXPECT_NE(expected.front(), 0);  // or all scores were equal
    for (const ShardingType type : {ShardingType::kDataParallel, ShardingType::kRowWise,
                                    ShardingType::kColumnWise, ShardingType::kGrid}) {
      for (const int world_size : {1, 2, 3, 4}) {
        EXPECT_EQ(best(type, world_size, world_size % 2 + 1, score_by, GetParam()), expected)
            << to_string(type) << " on " << world_size;
      }
    }
  }
}

TEST_P(DistributedTopKTest, AScoreThatIsNotANumberIsAnErrorThatNamesTheRow) {
  const EmbeddingTable table{
      .name = "item", .num_rows = kRows, .dim = kDim, .features = {"item"}, .init_scale = 1};
  std::vector<float> queries(kQueries * kDim, 1);
  queries[3 * kDim] = std::numeric_limits<float>::quiet_NaN();
  run_ranks(1, [&](Communicator& communicator) {
    const Stream stream(GetParam());
    const ShardingPlan plan{.world_size = 1,
                            .tables = {shard_table(table, ShardingType::kTableWise, 1, 0, 1)}};
    ShardedEmbedding embedding({table}, plan, {}, communicator, stream);
    const Buffer<float> own(queries, stream);
    const TopKQueries mine{.queries = own.matrix(kQueries, kDim),
                           .excluded = {},
                           .excluded_offsets = std::vector<std::int64_t>(kQueries + 1)};
    try {
      distributed_top_k(embedding, "item", mine, kBest, ScoreBy::kDotProduct, communicator, stream);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("row 3"), std::string::npos) << error.what();
    }
  });
}

}  // namespace
}  // namespace serrate
