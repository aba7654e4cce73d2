// What the ranks have to agree on, and what a plan costs.

#include <gtest/gtest.h>

#include <array>
#include <functional>

#include "tests/embedding/one_table.h"

namespace serrate {
namespace {

TEST(ShardedEmbeddingTest, BytesOfTheTables) {
  const EmbeddingTable table = make_table();
  const auto bytes = [&](ShardingType type, SparseOptimizer optimizer) {
    std::pair<std::int64_t, std::int64_t> result;
    run_ranks(2, [&](Communicator& communicator) {
      EmbeddingOptions options;
      options.optimizer.type = optimizer;
      const Rank rank({table}, plan_of(table, type, 2), options, communicator);
      if (communicator.rank() > 0) return;
      result = {rank.embedding.weight_bytes(), rank.embedding.optimizer_bytes()};
    });
    return result;
  };
  using Pair = std::pair<std::int64_t, std::int64_t>;
  // 4 rows x 8 columns x 4 bytes = 128.
  EXPECT_EQ(bytes(ShardingType::kDataParallel, SparseOptimizer::kSgd), Pair(128, 0));
  EXPECT_EQ(bytes(ShardingType::kRowWise, SparseOptimizer::kAdagrad), Pair(64, 64));
  EXPECT_EQ(bytes(ShardingType::kColumnWise, SparseOptimizer::kRowWiseAdagrad), Pair(64, 16));
  EXPECT_EQ(bytes(ShardingType::kTableWise, SparseOptimizer::kAdam), Pair(128, 256));
}

// Node 1 has the rows, ranks 3 and 2 two each. Words and floats are counted by messages.h.
TEST(ShardedEmbeddingTest, BetweenNodesABagCostsOneRow) {
  const EmbeddingTable table = make_table();
  const auto bytes = [&](ShardingType type) {
    std::vector<std::int64_t> of_rank(4);
    ShardingPlan plan = plan_of(table, ShardingType::kTableRowWise, 4);
    plan.tables[0].type = type;
    run_ranks(4, [&](Communicator& communicator) {
      Rank rank({table}, plan, sgd(), communicator);
      const bool has_ids = communicator.rank() == 0;
      rank.forward(has_ids ? std::vector<Ids>{{0, 3}, {1, 2}, {2}} : std::vector<Ids>{});
      of_rank[communicator.rank()] = rank.embedding.bytes_between_nodes(rank.exchange);
    });
    return of_rank;
  };
  // To both ranks: 3 bags of {3}, {2}, {2} in 7 words; 2 bags of {0}, {1} in 5; then 5 gradients
  // of 8 floats. The owners answer with 3 and 2 rows. A rank without ids sends an offset to both.
  EXPECT_EQ(bytes(ShardingType::kRowWise),
            (std::vector<std::int64_t>{12 * 8 + 5 * 32, 2 * 8, 3 * 32, 2 * 32}));
  // 3 bags of 5 ids in 9 words to the first rank of the node, which answers with 3 rows.
  EXPECT_EQ(bytes(ShardingType::kTableRowWise),
            (std::vector<std::int64_t>{9 * 8 + 3 * 32, 8, 3 * 32, 0}));
}

TEST(ShardedEmbeddingTest, LookupsAreInOrderOfTablesAndFeatures) {
  const std::vector<EmbeddingTable> tables{
      {.name = "a", .num_rows = 2, .dim = 4, .features = {"x", "y"}},
      {.name = "b", .num_rows = 2, .dim = 4, .features = {"x"}}};
  run_ranks(1, [&](Communicator& communicator) {
    const Rank rank(tables, default_plan(tables, 1), sgd(), communicator);
    const ShardedEmbedding& embedding = rank.embedding;
    ASSERT_EQ(embedding.lookups().size(), 3u);
    EXPECT_EQ(embedding.lookups()[1].feature, "y");
    EXPECT_EQ(embedding.lookup_index("x", "b"), 2);
    try {
      embedding.lookup_index("y", "b");
      FAIL();
    } catch (const Error& error) {
      EXPECT_STREQ(
          error.what(),
          "feature \"y\" is not looked up in table \"b\" (there are: x in a, y in a, x in b)");
    }
  });
}

TEST(Disagreement, NamesTheFieldAndTheRank) {
  const std::vector<EmbeddingTable> tables{
      {.name = "a", .num_rows = 9, .dim = 4, .features = {"x"}},
      {.name = "b", .num_rows = 9, .dim = 4, .features = {"x"}}};
  struct Case {
    const char* message;
    std::function<void(std::vector<EmbeddingTable>&, ShardingPlan&, EmbeddingOptions&)> change;
  };
  const std::vector<Case> cases{
      {"rank 2 differs from rank 0 in plan.tables[1].shards[0].rank: 2 there, 1 on rank 0",
       [](auto&, auto& plan, auto&) { plan.tables[1].shards[0].rank = 2; }},
      {"rank 2 differs from rank 0 in plan.tables[1].type",
       [](auto&, auto& plan, auto&) { plan.tables[1].type = ShardingType::kRowWise; }},
      {"rank 2 differs from rank 0 in tables[0].num_rows: 10 there, 9 on rank 0",
       [](auto& ts, auto&, auto&) { ts[0].num_rows = 10; }},
      {"rank 2 differs from rank 0 in tables[1].features[1]: \"y\" there, nothing on rank 0",
       [](auto& ts, auto&, auto&) { ts[1].features.push_back("y"); }},
      {"rank 2 differs from rank 0 in tables[1].pooling: \"mean\" there, \"sum\" on rank 0",
       [](auto& ts, auto&, auto&) { ts[1].pooling = PoolingType::kMean; }},
      {"rank 2 differs from rank 0 in tables[1].data_type: \"bf16\" there, \"fp32\" on rank 0",
       [](auto& ts, auto&, auto&) { ts[1].data_type = DataType::kBFloat16; }},
      {"rank 2 differs from rank 0 in options.seed: 3 there, 0 on rank 0",
       [](auto&, auto&, auto& options) { options.seed = 3; }},
      {"rank 2 differs from rank 0 in options.optimizer: \"adam\" there",
       [](auto&, auto&, auto& options) { options.optimizer.type = SparseOptimizer::kAdam; }},
  };
  for (const Case& c : cases) {
    const auto errors = errors_of(3, [&](Communicator& communicator) {
      auto own_tables = tables;
      ShardingPlan plan{3,
                        {shard_table(tables[0], ShardingType::kTableWise, 3, 0),
                         shard_table(tables[1], ShardingType::kTableWise, 3, 1)}};
      EmbeddingOptions options;
      if (communicator.rank() == 2) c.change(own_tables, plan, options);
      const Rank rank(own_tables, plan, options, communicator);
    });
    expect_on_every_rank(errors, c.message);
  }
}

TEST(Disagreement, NamesAreUtf8) {
  std::vector<EmbeddingTable> tables{
      {.name = "a", .num_rows = 9, .dim = 4, .features = {"x", "\xff"}}};
  const ShardingPlan plan = default_plan(tables, 1);
  run_ranks(1, [&](Communicator& communicator) {
    try {
      const Rank rank(tables, plan, sgd(), communicator);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_NE(std::string(error.what()).find("the name \"\xff\" is not UTF-8"), std::string::npos)
          << error.what();
    }
  });
}

TEST(Disagreement, PlanThatDoesNotFitIsRefusedOnEveryRank) {
  const EmbeddingTable table = make_table();
  const auto errors = errors_of(2, [&](Communicator& communicator) {
    const Rank rank({table}, plan_of(table, ShardingType::kRowWise, 3), sgd(), communicator);
  });
  expect_on_every_rank(errors, "sharding plan: world_size: is 3, but there are 2 ranks");
}

TEST(Disagreement, FeatureMissingOnOneRankIsAnErrorOnAll) {
  const EmbeddingTable table = make_table();
  const auto errors = errors_of(2, [&](Communicator& communicator) {
    Rank rank({table}, plan_of(table, ShardingType::kDataParallel, 2), sgd(), communicator);
    const char* key = communicator.rank() == 1 ? "itme" : "item";
    rank.embedding.input_dist(
        KeyedJaggedTensor::from_offsets({key}, {{1, 2}}, {{0, 2}}, rank.stream), rank.exchange,
        rank.stream);
  });
  expect_on_every_rank(errors, "rank 1: no feature \"item\" (there are: itme)");
}

TEST(Disagreement, ABatchAheadIsWrongWhenItsStepBegins) {
  const EmbeddingTable table = make_table();
  std::array<bool, 2> has_come{};  // to the step of the batch that is wrong
  const auto errors = errors_of(2, [&](Communicator& communicator) {
    Rank rank({table}, plan_of(table, ShardingType::kRowWise, 2), sgd(), communicator);
    rank.set_weights();
    EmbeddingInput ahead;
    EmbeddingExchange taken;
    rank.forward({{1}});
    rank.embedding.input_dist(items({{communicator.rank() == 1 ? 4 : 3}}, {}, rank.stream), ahead,
                              rank.stream);
    rank.backward(5, 1);
    rank.forward({{1}});
    rank.expect_rows({90}, {1});
    EXPECT_TRUE(ahead.failure());
    has_come.at(communicator.rank()) = true;
    taken.take(ahead, rank.stream);
  });
  EXPECT_EQ(has_come, (std::array{true, true}));
  expect_on_every_rank(errors, "rank 1: feature \"item\": sample (bag) 0 has id 4 at position 0");
}

TEST(Disagreement, ARankWithoutABatchSaysWhyWhenItsStepBegins) {
  const EmbeddingTable table = make_table();
  std::array<bool, 2> has_come{};
  const auto errors = errors_of(2, [&](Communicator& communicator) {
    Rank rank({table}, plan_of(table, ShardingType::kRowWise, 2), sgd(), communicator);
    EmbeddingInput ahead;
    if (communicator.rank() == 1) {
      rank.embedding.announce_failure(Error("the file is damaged"), ahead);
    } else {
      rank.embedding.input_dist(items({{3}}, {}, rank.stream), ahead, rank.stream);
    }
    has_come.at(communicator.rank()) = true;
    rank.exchange.take(ahead, rank.stream);
  });
  EXPECT_EQ(has_come, (std::array{true, true}));
  expect_on_every_rank(errors, "rank 1: the file is damaged");
}

TEST(Disagreement, ABatchAheadIsTakenAndInNoOtherWay) {
  const EmbeddingTable table = make_table();
  run_ranks(2, [&](Communicator& communicator) {
    Rank rank({table}, plan_of(table, ShardingType::kRowWise, 2), sgd(), communicator);
    EmbeddingInput ahead;
    const auto send = [&] {
      rank.embedding.input_dist(items({{1}}, {}, rank.stream), ahead, rank.stream);
    };
    send();
    EXPECT_THROW(send(), Error);  // the first would be lost
    rank.exchange.take(ahead, rank.stream);
    rank.look_up(rank.exchange);
    EXPECT_THROW(rank.forward({{1}}), Error);
    send();
    EmbeddingExchange other;
    rank.embedding.input_dist(items({{1}}, {}, rank.stream), other, rank.stream);
    EXPECT_THROW(other.take(ahead, rank.stream), Error);
    rank.exchange.take(ahead, rank.stream);  // it still waits
  });
}

TEST(Disagreement, WeightsOnSomeRanksOnly) {
  const EmbeddingTable table = make_table();
  for (const auto type : {ShardingType::kRowWise, ShardingType::kTableRowWise}) {
    const auto errors = errors_of(4, [&](Communicator& communicator) {
      Rank rank({table}, plan_of(table, type, 4), sgd(), communicator);
      rank.forward({{1, 2}}, communicator.rank() == 1 ? Floats{1, 2} : Floats{});
    });
    expect_on_every_rank(errors, "the batch of rank 1 has weights and that of rank 0 has none");
  }
}

}  // namespace
}  // namespace serrate
