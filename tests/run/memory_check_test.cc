#include "src/run/memory_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "serrate/error.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

// 1,000 rows of 64 bytes with a moment of 4: 68,000 bytes on rank 1 of 2. Nothing is looked up, so
// the exchange is next to nothing.
class MemoryCheck : public ::testing::Test {
 protected:
  MemoryCheck() {
    model_.tables = {{.name = "item", .num_rows = 1000, .dim = 16}};
    model_.tables[0].optimizer = SparseOptimizer::kRowWiseAdagrad;
    const EmbeddingTable table{.name = "item", .num_rows = 1000, .dim = 16};
    plan_ = {.world_size = 2, .tables = {shard_table(table, ShardingType::kTableWise, 2, 1)}};
  }
  std::string refusal(const std::string& limit, const Machines& machines,
                      MemoryUse use = MemoryUse::kEvaluation) {
    return testing::message_of<Error>(
        [&] { check_memory(model_, plan_, {2000, 1000}, limit, machines, use); });
  }
  PlannerModel model_;
  ShardingPlan plan_;
};

constexpr MachineMemory kPlenty{1 << 30, 1 << 30};

TEST_F(MemoryCheck, ARankMayUseWhatTheLimitSays) {
  const Machines machines{.host = {{0, 0}, {kPlenty}}};
  EXPECT_EQ(refusal("75kB", machines), "(no exception)");
  // 71,000 bytes and what grouping no ids takes.
  EXPECT_THAT(
      refusal("60kB", machines),
      ::testing::AllOf(::testing::StartsWith("rank 1 will need 69.36 KiB (tables 62.50 KiB, "
                                             "optimizer 3.91 KiB, "),
                       ::testing::HasSubstr("\"item\" (66.41 KiB)"),
                       ::testing::HasSubstr("--plan auto")));
  // Not even in equal parts.
  EXPECT_THAT(refusal("30kB", machines), ::testing::HasSubstr("use more ranks"));
}

TEST_F(MemoryCheck, TheRanksOfAMachineShareWhatItHas) {
  // 68,000 and twice 3,000 bytes.
  const MachineMemory small{1 << 30, 74'500}, smaller{1 << 30, 73'500};
  EXPECT_EQ(refusal("", {.host = {{0, 0}, {small}}}), "(no exception)");
  EXPECT_THAT(refusal("", {.host = {{0, 0}, {smaller}}}),
              ::testing::StartsWith("the 2 ranks of one machine will need 72.29 KiB"));
  // Rank 1 has a machine of its own.
  EXPECT_EQ(refusal("", {.host = {{0, 1}, {{1 << 30, 4000}, smaller}}}), "(no exception)");
}

TEST_F(MemoryCheck, RankZeroCountsTheBaselinesInItsMachinesMemory) {
  const auto refusal_with = [&](std::int64_t baselines, std::int64_t bytes_of_first,
                                const SharedMemory& gpus) {
    const SharedMemory host{{0, 1}, {{1 << 30, bytes_of_first}, kPlenty}};
    DenseMemory dense{2000, 1000};
    dense.baselines = baselines;
    return testing::message_of<Error>([&] {
      check_memory(model_, plan_, dense, "", {.host = host, .gpus = gpus}, MemoryUse::kEvaluation);
    });
  };
  // 2,000 bytes of parameters; the 1,000 of activations are taken when the baselines are free
  // again.
  EXPECT_EQ(refusal_with(50'000, 52'000, {}), "(no exception)");
  EXPECT_THAT(refusal_with(50'000, 51'999, {}),
              ::testing::HasSubstr("(dense 1.95 KiB, baselines 48.83 KiB) and it has"));
  EXPECT_EQ(refusal_with(1000, 3500, {}), "(no exception)");  // less than what comes after them
  const std::string alone =
      "the baselines, which rank 0 counts, will need 48.83 KiB and its machine has 48.83 KiB to "
      "give (evaluate on a machine with more memory)";
  EXPECT_EQ(refusal_with(50'000, 49'999, {}), alone);
  const SharedMemory gpus{{0, 1}, {{1 << 30, 3500}, kPlenty}};
  EXPECT_EQ(refusal_with(50'000, 50'000, gpus), "(no exception)");
  EXPECT_EQ(refusal_with(50'000, 49'999, gpus), alone);
}

TEST_F(MemoryCheck, ATrainingHasTheIdsOfTheNextBatch) {
  const Machines machines{.host = {{0, 0}, {kPlenty}}};
  model_.batch_size = 100;
  model_.tables[0].features = {{.pooling_factor = 10}};
  const RankMemory rank = predict_memory(model_, plan_)[1];
  ASSERT_GT(rank.ahead, 2 * 100 * 10 * 8);  // the ids of both ranks
  const auto refused = [&](std::int64_t bytes, MemoryUse use) {
    return refusal(std::to_string(bytes), machines, use) != "(no exception)";
  };
  const std::int64_t evaluation = rank.total() + 3000, training = evaluation + rank.ahead;
  EXPECT_FALSE(refused(evaluation, MemoryUse::kEvaluation));
  EXPECT_TRUE(refused(evaluation - 1, MemoryUse::kEvaluation));
  EXPECT_FALSE(refused(training, MemoryUse::kTraining));
  EXPECT_TRUE(refused(training - 1, MemoryUse::kTraining));
}

TEST_F(MemoryCheck, ACheckpointIsWrittenFromACopy) {
  const Machines machines{.host = {{0, 0}, {kPlenty}}};
  // 68,000 bytes again, and three fifths of 2,000.
  EXPECT_EQ(refusal("141kB", machines, MemoryUse::kTrainingWithCopy), "(no exception)");
  EXPECT_THAT(refusal("140kB", machines, MemoryUse::kTrainingWithCopy),
              ::testing::HasSubstr("copy for --checkpoint-every 67.58 KiB"));
  const MachineMemory small{1 << 30, 144'600}, smaller{1 << 30, 144'400};
  EXPECT_EQ(refusal("", {.host = {{0, 0}, {small}}}, MemoryUse::kTrainingWithCopy),
            "(no exception)");
  EXPECT_THAT(refusal("", {.host = {{0, 0}, {smaller}}}, MemoryUse::kTrainingWithCopy),
              ::testing::HasSubstr("copy for --checkpoint-every 68.75 KiB"));
}

TEST_F(MemoryCheck, OnGpusTheModelIsInTheirMemoryAndTheCopyInTheMachines) {
  // The model as above: 3,000 bytes on rank 0, 71,000 on rank 1; its copy 1,200 and 69,200.
  const SharedMemory host{{0, 0}, {{1 << 30, 70'500}}}, smaller_host{{0, 0}, {{1 << 30, 70'300}}};
  const SharedMemory gpus{{0, 1}, {{1 << 30, 4000}, {1 << 30, 71'500}}};
  const SharedMemory smaller_gpus{{0, 1}, {{1 << 30, 4000}, {1 << 30, 70'500}}};
  const auto copy = MemoryUse::kTrainingWithCopy;
  EXPECT_EQ(refusal("", {.host = host, .gpus = gpus}, copy), "(no exception)");
  EXPECT_THAT(refusal("", {.host = host, .gpus = smaller_gpus}, copy),
              ::testing::StartsWith("the 1 rank of one GPU will need 69.36 KiB (tables"));
  EXPECT_THAT(refusal("", {.host = smaller_host, .gpus = gpus}, copy),
              ::testing::StartsWith("the 2 ranks of one machine will need 68.75 KiB (copy for "
                                    "--checkpoint-every 68.75 KiB) and it has"));
  EXPECT_EQ(refusal("75kB", {.host = smaller_host, .gpus = gpus}, copy), "(no exception)");
}

TEST_F(MemoryCheck, AsManyTokensAsFit) {
  // Rank 1 needs 70,000 bytes and 10 for each token; rank 0, on a GPU of its own, 2,000.
  const auto dense = [](std::int64_t tokens) { return DenseMemory{2000, 10 * tokens}; };
  const auto most_on = [&](std::int64_t bytes, std::int64_t least, std::int64_t most) {
    const SharedMemory host{{0, 0}, {kPlenty}}, gpus{{0, 1}, {kPlenty, {1 << 30, bytes}}};
    return tokens_that_fit(model_, plan_, dense, least, most, "", {.host = host, .gpus = gpus},
                           MemoryUse::kEvaluation);
  };
  const std::int64_t rest = predict_memory(model_, plan_)[1].total() + 2000;
  const std::int64_t all = std::numeric_limits<std::int64_t>::max() / 10;
  // A tenth of the memory is left.
  const auto with_rest_and = [&](std::int64_t bytes) { return (rest + bytes) * 10 / 9 + 1; };
  EXPECT_EQ(most_on(with_rest_and(1238), 50, all), 123);
  EXPECT_EQ(most_on(with_rest_and(1240), 50, all), 124);
  EXPECT_EQ(most_on(with_rest_and(1238), 50, 123), 123);
  EXPECT_EQ(most_on(with_rest_and(1238), 50, 124), 123);
  EXPECT_EQ(most_on(with_rest_and(1238), 200, all), 200);  // for check_memory() to refuse
}

TEST_F(MemoryCheck, EvaluationReadsRowsOf16BitsByACopy) {
  TrainOptions run;
  run.model.dim = 16;
  const auto ranking = [&](DataType type, std::int64_t num_items) {
    run.embedding_precision = type;
    return evaluation_memory(model_, run, {}, num_items, {.host = {{0, 0}, {kPlenty}}}, 10).ranking;
  };
  for (const DataType type : {DataType::kFloat16, DataType::kBFloat16}) {
    EXPECT_EQ(ranking(type, 20'000) - ranking(DataType::kFloat32, 20'000), 8192 * 16 * 4 * 5 / 4);
    EXPECT_EQ(ranking(type, 1000) - ranking(DataType::kFloat32, 1000), 1000 * 16 * 4 * 5 / 4);
  }
}

TEST_F(MemoryCheck, EvaluationKeepsTheScoresOfAPieceOfTheRows) {
  model_.batch_size = 512;
  const auto ranking = [&](std::int64_t num_items) {
    return evaluation_memory(model_, {}, {}, num_items, {.host = {{0}, {kPlenty}}}, 10).ranking;
  };
  EXPECT_EQ(ranking(8192) - ranking(1000), 512 * (8192 - 1008) * 4 * 5 / 4);  // 16 at a time
  EXPECT_EQ(ranking(1'000'000), ranking(8192));
}

TEST(Topology, HasTheMemoryOfGpus) {
  const SharedMemory host{{0, 0, 1, 1}, {{1000, 900}, {1000, 900}}};
  const SharedMemory gpus{{0, 1, 2, 2}, {{100, 90}, {100, 90}, {100, 90}}};
  const PlannerTopology t = topology_of({.host = host, .gpus = gpus}, 0);
  EXPECT_EQ(t.device, PlannerDevice::kCuda);
  EXPECT_EQ(t.ranks_per_node, 2);
  EXPECT_EQ(t.host_bytes, (std::vector<std::int64_t>{500, 500, 500, 500}));
  EXPECT_EQ(t.device_bytes, (std::vector<std::int64_t>{100, 100, 50, 50}));
  // docs/planner.md, in bytes per ms.
  constexpr double kGiBPerSecond = (1 << 30) * 1e-3;
  EXPECT_DOUBLE_EQ(t.device_bandwidth, 897 * kGiBPerSecond);
  EXPECT_DOUBLE_EQ(t.host_link_bandwidth, 32 * kGiBPerSecond);
  EXPECT_DOUBLE_EQ(t.intra_node_bandwidth, 600 * kGiBPerSecond);
  EXPECT_DOUBLE_EQ(t.inter_node_bandwidth, 12.5 * kGiBPerSecond);
  EXPECT_EQ(topology_of({.host = host}, 0).device, PlannerDevice::kCpu);
  EXPECT_EQ(topology_of({.host = host}, 0).device_bytes, std::vector<std::int64_t>(4, 0));
}

}  // namespace
}  // namespace serrate
