// Our cost model against cases worked out by hand from docs/planner.md.

#include "sharding/estimate/serrate_estimator.h"

#include <gtest/gtest.h>

#include <numeric>

namespace serrate {
namespace {

// 4 bags of 2 ids of every rank; rows of 64 bytes, so many that no id occurs twice.
PlannerTable wide_table() {
  return {.name = "t",
          .num_rows = 1'000'000'000,
          .dim = 16,
          .features = {{.pooling_factor = 2}},
          .optimizer = SparseOptimizer::kSgd,
          .min_columns = 8};
}
constexpr std::int64_t kBatchSize = 4;

PlannerTopology ranks(int world_size, int ranks_per_node) {
  PlannerTopology t{
      .device = PlannerDevice::kCpu, .world_size = world_size, .ranks_per_node = ranks_per_node};
  t.host_bandwidth = 100;
  t.intra_node_bandwidth = 10;
  t.inter_node_bandwidth = 5;
  t.lookup_bandwidth = 50;
  t.update_bandwidth = 25;
  return t;
}

struct Times {
  double input_dist, forward_compute, forward_comms, backward_comms, backward_compute;
};

void expect_times(const ShardEstimate& e, const Times& expected) {
  EXPECT_NEAR(e.input_dist, expected.input_dist, 1e-5);
  EXPECT_NEAR(e.forward_compute, expected.forward_compute, 1e-5);
  EXPECT_NEAR(e.forward_comms, expected.forward_comms, 1e-5);
  EXPECT_NEAR(e.backward_comms, expected.backward_comms, 1e-5);
  EXPECT_NEAR(e.backward_compute, expected.backward_compute, 1e-5);
}

ShardEstimate estimate(const PlannerTable& table, ShardingType type, const PlannerTopology& t,
                       int row_block = 0) {
  const auto kernel =
      type == ShardingType::kDataParallel ? ComputeKernel::kDense : ComputeKernel::kFused;
  const ShardingOption option = sharding_option(table, type, kernel, t, t.world_size);
  return serrate_estimate(table, option, rows_of(table, option, row_block), t, kBatchSize);
}

TEST(SerrateEstimator, TableWise) {
  // 16 ids in 8 bags: 192 bytes of ids and offsets, 512 of rows. Half is copied at 100, half
  // crosses at 10. Update: rows read and written at 25; gradients and, for 384 bytes an id,
  // grouping at 100.
  expect_times(estimate(wide_table(), ShardingType::kTableWise, ranks(2, 2)),
               {.input_dist = 96 * 0.11,
                .forward_compute = 16 * 64 / 50.0 + (192 + 512) / 100.0,
                .forward_comms = 256 * 0.11,
                .backward_comms = 256 * 0.11,
                .backward_compute = 2 * 16 * 64 / 25.0 + (16 * 384 + 512) / 100.0});
}

TEST(SerrateEstimator, RanksOfAnotherNodeAreReachedAtItsBandwidth) {
  // As above on nodes of one rank.
  const ShardEstimate e = estimate(wide_table(), ShardingType::kTableWise, ranks(2, 1));
  EXPECT_NEAR(e.input_dist, 96 * 0.21, 1e-5);
  EXPECT_NEAR(e.forward_comms, 256 * 0.21, 1e-5);
}

TEST(SerrateEstimator, RowWiseMovesTheBagsThatHaveAnIdInTheBlock) {
  // 8 ids, in 3/4 of the 8 bags.
  expect_times(estimate(wide_table(), ShardingType::kRowWise, ranks(2, 2)),
               {.input_dist = 56 * 0.11,
                .forward_compute = 8 * 64 / 50.0 + (112 + 384) / 100.0,
                .forward_comms = 192 * 0.11,
                .backward_comms = 192 * 0.11,
                .backward_compute = 2 * 8 * 64 / 25.0 + (8 * 384 + 384) / 100.0});
}

TEST(SerrateEstimator, EmptyAndShorterShardsCostLess) {
  PlannerTable table = wide_table();
  table.num_rows = 5;  // on 4 ranks: 2, 2, 1 and no rows
  const PlannerTopology t = ranks(4, 4);
  const double full = estimate(table, ShardingType::kRowWise, t, 0).forward_comms;
  EXPECT_EQ(estimate(table, ShardingType::kRowWise, t, 1).forward_comms, full);
  // Bags of 2 ids: 1 - (3/5)^2 of them have one in 2 of 5 rows, 1 - (4/5)^2 in 1.
  EXPECT_NEAR(estimate(table, ShardingType::kRowWise, t, 2).forward_comms, full * 0.36 / 0.64,
              1e-9);
  const ShardEstimate none = estimate(table, ShardingType::kRowWise, t, 3);
  EXPECT_EQ(none.total(PlannerEstimator::kSerrate), 0);
  EXPECT_EQ(none.host_bytes, 0);
}

TEST(SerrateEstimator, ColumnWise) {
  // Half rows of 32 bytes, which cost a cache line to read; ids go to both blocks.
  PlannerTable table = wide_table();
  const Times expected{.input_dist = 96 * 0.11,
                       .forward_compute = 16 * 64 / 50.0 + (192 + 256) / 100.0,
                       .forward_comms = 128 * 0.11,
                       .backward_comms = 128 * 0.11,
                       .backward_compute = 2 * 16 * 64 / 25.0 + (16 * 384 + 256) / 100.0};
  expect_times(estimate(table, ShardingType::kColumnWise, ranks(2, 2)), expected);
  // Row-wise Adagrad moves a line of state a row, and each block's squares to both; gradients are
  // summed for them first.
  table.optimizer = SparseOptimizer::kRowWiseAdagrad;
  Times with_state = expected;
  with_state.backward_compute += 2 * 16 * 64 / 25.0 + 16 * 32 / 100.0;
  with_state.backward_comms += 16 * 2 * 4 / 2 * 0.11;
  expect_times(estimate(table, ShardingType::kColumnWise, ranks(2, 2)), with_state);
}

TEST(SerrateEstimator, DataParallelGathersIdsAndGradientsOfAllRanks) {
  expect_times(estimate(wide_table(), ShardingType::kDataParallel, ranks(2, 2)),
               {.input_dist = 0,
                .forward_compute = 8 * 64 / 50.0 + (96 + 256) / 100.0,
                .forward_comms = 0,
                .backward_comms = (192 + 512) / 2 * 0.11,
                .backward_compute = 2 * 16 * 64 / 25.0 + (16 * 384 + 512) / 100.0});
}

TEST(SerrateEstimator, TableRowWiseGoesThroughTheNode) {
  // 2 nodes of 2 ranks. This rank passes on 16 ids in 8 bags (192 bytes, rows 512) for the ranks
  // that it stands for, parted into 12 (224 and 768 bytes, 192 an id for parting); it serves as
  // much to its node.
  const double passed_on = 96 * 0.21 + (2 * (192 + 224) + 16 * 192) / 100.0;
  const double sums = 256 * 0.21;
  const PlannerTopology t = ranks(4, 2);
  expect_times(estimate(wide_table(), ShardingType::kTableRowWise, t),
               {.input_dist = passed_on + 112 * 0.11,
                .forward_compute = 16 * 64 / 50.0 + (224 + 768) / 100.0,
                .forward_comms = sums + 384 * 0.11 + (512 + 3 * 768) / 100.0,
                .backward_comms = sums + 384 * 0.11 + 2 * 768 / 100.0,
                .backward_compute = 2 * 16 * 64 / 25.0 + (16 * 384 + 768) / 100.0});
  // A rank of the node without rows passes on too.
  PlannerTable table = wide_table();
  table.num_rows = 1;
  const ShardEstimate empty = estimate(table, ShardingType::kTableRowWise, t, 1);
  EXPECT_EQ(empty.forward_compute, 0);
  EXPECT_GT(empty.input_dist, 96 * 0.21);
}

TEST(SerrateEstimator, GridIsTableRowWiseOfAColumnBlock) {
  PlannerTable half = wide_table();
  half.dim = 8;
  const PlannerTopology t = ranks(4, 2);
  const ShardEstimate grid = estimate(wide_table(), ShardingType::kGrid, t);
  const ShardEstimate of_half = estimate(half, ShardingType::kTableRowWise, t);
  EXPECT_EQ(grid.total(PlannerEstimator::kSerrate), of_half.total(PlannerEstimator::kSerrate));
}

TEST(SerrateEstimator, TableColumnWiseIsColumnWise) {
  const ShardEstimate a = estimate(wide_table(), ShardingType::kColumnWise, ranks(4, 2));
  const ShardEstimate b = estimate(wide_table(), ShardingType::kTableColumnWise, ranks(4, 2));
  EXPECT_EQ(a.total(PlannerEstimator::kSerrate), b.total(PlannerEstimator::kSerrate));
}

TEST(SerrateEstimator, RowsThatOccurAgainAreReadAndUpdatedOnce) {
  PlannerTable table = wide_table();
  table.num_rows = 1;
  const ShardEstimate e = estimate(table, ShardingType::kTableWise, ranks(2, 2));
  EXPECT_NEAR(e.forward_compute, 64 / 50.0 + (15 * 64 + 192 + 512) / 100.0, 1e-9);
  EXPECT_NEAR(e.backward_compute, 2 * 64 / 25.0 + (16 * 384 + 512) / 100.0, 1e-9);
}

TEST(SerrateEstimator, WeightsAndOptimizerState) {
  PlannerTable table = wide_table();
  table.weighted = true;
  table.optimizer = SparseOptimizer::kAdam;
  const ShardEstimate e = estimate(table, ShardingType::kTableWise, ranks(2, 2));
  EXPECT_NEAR(e.input_dist, (192 + 16 * 4) / 2 * 0.11, 1e-9);
  EXPECT_NEAR(e.backward_compute, 2 * 16 * (64 + 128) / 25.0 + (16 * 384 + 512) / 100.0, 1e-5);
  EXPECT_EQ(e.exchange_bytes, (192 + 64 + 512) * 5 / 4);
  EXPECT_EQ(e.host_bytes, 1'000'000'000 * std::int64_t{64 * 3} + e.exchange_bytes);
}

TEST(SerrateEstimator, EveryRankPacksItsIdsAndAddsUpItsRows) {
  // 8 ids in 4 bags: 96 bytes of ids and offsets, rows and outputs of 256.
  const PlannerTable table = wide_table();
  const PlannerTopology t = ranks(2, 2);
  const auto everywhere = [&](ShardingType type) {
    const ShardingOption option = sharding_option(table, type, ComputeKernel::kFused, t, 2);
    return serrate_everywhere(table, option, t, kBatchSize);
  };
  const ShardEstimate whole = everywhere(ShardingType::kTableWise);
  EXPECT_NEAR(whole.input_dist, (2 * 96 + 4 * 8 + 2 * 96) / 100.0, 1e-9);
  EXPECT_NEAR(whole.forward_comms, (256 + 3 * 256) / 100.0, 1e-9);
  EXPECT_NEAR(whole.backward_comms, 2 * 256 / 100.0, 1e-9);
  // Two row blocks: 6 bags, of 112 bytes, and parting; two column blocks: the ids twice.
  EXPECT_NEAR(everywhere(ShardingType::kRowWise).input_dist,
              (2 * 112 + 6 * 8 + 8 * 192 + 2 * 112) / 100.0, 1e-9);
  EXPECT_NEAR(everywhere(ShardingType::kRowWise).forward_comms, (256 + 3 * 384) / 100.0, 1e-9);
  EXPECT_NEAR(everywhere(ShardingType::kColumnWise).input_dist,
              (2 * 96 + 4 * 8 + 2 * 2 * 96) / 100.0, 1e-9);
}

TEST(SerrateEstimator, LatencyIsOncePerExchange) {
  using enum ShardingType;
  PlannerModel model{.tables = {wide_table(), wide_table()}};
  model.tables[1].optimizer = SparseOptimizer::kRowWiseAdagrad;
  PlannerTopology t = ranks(4, 2);
  t.intra_node_latency = 0.1;
  t.inter_node_latency = 1;
  const double all = 0.1 + 2, through_node = 0.1 + 1;
  const PlacedTable whole{kTableWise, ComputeKernel::kFused, {0}};
  const PlacedTable replicated{kDataParallel, ComputeKernel::kDense, {}};
  const PlacedTable node{kTableRowWise, ComputeKernel::kFused, {1}};
  const PlacedTable columns{kColumnWise, ComputeKernel::kFused, {0, 3}};
  const auto latency = [&](const PlacedTable& a, const PlacedTable& b) {
    return serrate_latency(model, t, std::array{a, b});
  };
  EXPECT_NEAR(latency(whole, whole), 3 * all, 1e-9);
  EXPECT_NEAR(latency(replicated, replicated), (1 + 2) * all, 1e-9);
  EXPECT_NEAR(latency(whole, replicated), (3 + 2) * all, 1e-9);
  EXPECT_NEAR(latency(node, node), all + 3 * through_node, 1e-9);
  EXPECT_NEAR(latency(whole, columns), (3 + 1) * all, 1e-9);
  EXPECT_NEAR(serrate_latency(model, t, {}), all, 1e-9);
  model.tables[0].weighted = true;
  EXPECT_NEAR(latency(whole, node), (3 + 1) * all + (3 + 1) * through_node, 1e-9);
}

// So that no rank takes longer than the critical path.
TEST(PhaseTimes, SumToTheTotal) {
  const ShardEstimate e{.forward_compute = 1,
                        .forward_comms = 2,
                        .backward_compute = 4,
                        .backward_comms = 8,
                        .input_dist = 16};
  const auto sum = [&](PlannerEstimator estimator) {
    const PhaseTimes times = phase_times(estimator, ShardingType::kRowWise, e);
    return std::accumulate(times.begin(), times.end(), 0.0);
  };
  EXPECT_EQ(sum(PlannerEstimator::kTorchRec), 15);
  EXPECT_EQ(e.total(PlannerEstimator::kTorchRec), 15);
  EXPECT_EQ(sum(PlannerEstimator::kSerrate), 31);
  EXPECT_EQ(e.total(PlannerEstimator::kSerrate), 31);
}

}  // namespace
}  // namespace serrate
