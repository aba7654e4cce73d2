#include "serrate/sharded_embedding.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "serrate/error.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

using Ids = std::vector<std::int64_t>;
using Floats = std::vector<float>;

const Stream& cpu() {
  static const Stream stream;
  return stream;
}

constexpr ShardingType kTypes[] = {
    ShardingType::kDataParallel, ShardingType::kTableWise,    ShardingType::kRowWise,
    ShardingType::kColumnWise,   ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
    ShardingType::kGrid,
};

EmbeddingTable make_table(PoolingType pooling = PoolingType::kSum) {
  return {.name = "items", .num_rows = 4, .dim = 8, .pooling = pooling, .features = {"item"}};
}

// Types that need nodes have two of two ranks, the table on the second node or from there on.
int world_of(ShardingType type, int num_ranks) {
  return needs_nodes(type) ? 4 : num_ranks;
}

ShardingPlan plan_of(const EmbeddingTable& table, ShardingType type, int world_size) {
  if (!needs_nodes(type)) return {world_size, {shard_table(table, type, world_size)}};
  return {world_size, {shard_table(table, type, world_size, 3, 2)}, 2};
}

EmbeddingOptions sgd(InvalidIds invalid_ids = InvalidIds::kError) {
  EmbeddingOptions options;
  options.optimizer = {.type = SparseOptimizer::kSgd, .learning_rate = 1.0f};
  options.invalid_ids = invalid_ids;
  return options;
}

KeyedJaggedTensor items(const std::vector<Ids>& bags, const Floats& weights = {}) {
  Ids values, offsets{0};
  for (const Ids& bag : bags) {
    values.insert(values.end(), bag.begin(), bag.end());
    offsets.push_back(std::ssize(values));
  }
  return {{"item"},
          {std::ssize(bags)},
          {std::ssize(values)},
          {std::span<const std::int64_t>(values), cpu()},
          {std::span<const std::int64_t>(offsets), cpu()},
          {std::span<const float>(weights), cpu()}};
}

// Row r, column c holds 100 r + c.
void set_weights(ShardedEmbedding& embedding) {
  for (const LocalShard& local : embedding.local_shards()) {
    const MatrixView<float> weights = host_view(local.weights, cpu());
    for (std::int64_t r = 0; r < weights.rows; ++r) {
      for (std::int64_t c = 0; c < weights.cols; ++c) {
        weights.row(r)[c] =
            static_cast<float>(100 * (local.shard.row_begin + r) + local.shard.column_begin + c);
      }
    }
  }
}

void forward(ShardedEmbedding& embedding, const KeyedJaggedTensor& batch,
             EmbeddingExchange& exchange) {
  embedding.input_dist(batch, exchange, cpu());
  embedding.lookup(exchange, cpu());
  embedding.output_dist(exchange, cpu());
}

// Column c of bag b is expected[b] + factors[b] c.
void expect_rows(const MatrixView<const float>& output, const Floats& expected,
                 const Floats& factors) {
  ASSERT_EQ(output.rows, std::ssize(expected));
  ASSERT_EQ(output.cols, 8);
  for (std::int64_t b = 0; b < output.rows; ++b) {
    for (std::int64_t c = 0; c < output.cols; ++c) {
      EXPECT_EQ(output.row(b)[c], expected[b] + factors[b] * static_cast<float>(c))
          << "bag " << b << " column " << c;
    }
  }
}

// Runs body on every rank and returns what each threw, by rank.
std::vector<std::string> errors_of(int world_size, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> errors(world_size, "nothing was thrown");
  run_ranks(world_size, [&](Communicator& communicator) {
    try {
      body(communicator);
    } catch (const Error& error) {
      errors[communicator.rank()] = error.what();
    }
    communicator.barrier("end");
  });
  return errors;
}

void expect_on_every_rank(const std::vector<std::string>& errors, const std::string& part) {
  for (const std::string& error : errors) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(error, errors[0]);
  }
}

class EveryType : public testing::TestWithParam<ShardingType> {};

TEST_P(EveryType, SumsAndTheirUpdate) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(GetParam(), 2), [&](Communicator& communicator) {
    ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()), sgd(),
                               communicator, cpu());
    set_weights(embedding);
    EmbeddingExchange exchange;
    if (communicator.rank() == 0) {
      forward(embedding, items({{0, 3}}), exchange);
      expect_rows(exchange.output(0), {300}, {2});
    } else if (communicator.rank() > 1) {
      forward(embedding, items({}), exchange);
    } else {
      forward(embedding, items({{}, {2, 2, 1}}), exchange);
      expect_rows(exchange.output(0), {0, 500}, {0, 3});
    }
    const auto gradient = host_view(exchange.d_output(0), cpu());
    for (std::int64_t b = 0; b < gradient.rows; ++b) std::fill_n(gradient.row(b), 8, 5.0f);
    embedding.output_dist_backward(exchange, cpu());
    embedding.update(exchange, 1, cpu());
    // Each occurrence takes 1.0 x 5 off its row.
    forward(embedding, items({{0}, {1}, {2}, {3}}), exchange);
    expect_rows(exchange.output(0), {-5, 95, 190, 295}, {1, 1, 1, 1});
  });
}

TEST_P(EveryType, WeightedMeans) {
  const EmbeddingTable table = make_table(PoolingType::kMean);
  run_ranks(world_of(GetParam(), 2), [&](Communicator& communicator) {
    ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()), sgd(),
                               communicator, cpu());
    set_weights(embedding);
    EmbeddingExchange exchange;
    // A rank without ids cannot tell whether the batch is weighted.
    const bool has_ids = communicator.rank() == 0;
    forward(embedding, has_ids ? items({{1, 3}, {2}}, {2.0f, 0.5f, 3.0f}) : items({{}}), exchange);
    if (has_ids) {
      expect_rows(exchange.output(0), {(200 + 150) / 2.0f, 600}, {1.25f, 3});
    } else {
      expect_rows(exchange.output(0), {0}, {0});
    }
    const auto gradient = host_view(exchange.d_output(0), cpu());
    for (std::int64_t b = 0; b < gradient.rows; ++b) std::fill_n(gradient.row(b), 8, 4.0f);
    embedding.output_dist_backward(exchange, cpu());
    embedding.update(exchange, 1, cpu());
    // Row 1: 4 x 2 / 2, row 3: 4 x 0.5 / 2, row 2: 4 x 3.
    forward(embedding, items({{0}, {1}, {2}, {3}}), exchange);
    expect_rows(exchange.output(0), {0, 96, 188, 299}, {1, 1, 1, 1});
  });
}

TEST_P(EveryType, BatchesWithoutIdsAndWithoutBags) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(GetParam(), 3), [&](Communicator& communicator) {
    ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()), sgd(),
                               communicator, cpu());
    set_weights(embedding);
    EmbeddingExchange exchange;
    const std::vector<std::vector<Ids>> batches{{}, {{}}, {{2}}};
    for (int step = 1; step <= 3; ++step) {
      const auto& bags = batches[(communicator.rank() + step) % 3];
      forward(embedding, items(bags), exchange);
      EXPECT_EQ(exchange.output(0).rows, std::ssize(bags));
      std::fill_n(exchange.d_output(0).device_data(), bags.size() * 8, 1.0f);
      embedding.output_dist_backward(exchange, cpu());
      embedding.update(exchange, step, cpu());
    }
    forward(embedding, items({}), exchange);  // no rank has anything
    embedding.output_dist_backward(exchange, cpu());
    embedding.update(exchange, 4, cpu());
    forward(embedding, items({{2}, {1}}), exchange);
    // Each rank had {2} once.
    expect_rows(exchange.output(0), {200.0f - static_cast<float>(communicator.size()), 100},
                {1, 1});
  });
}

TEST_P(EveryType, InvalidIdIsTheSameErrorOnEveryRankAndTrainingCanGoOn) {
  const EmbeddingTable table = make_table();
  const auto errors = errors_of(world_of(GetParam(), 3), [&](Communicator& communicator) {
    ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()), sgd(),
                               communicator, cpu());
    set_weights(embedding);
    EmbeddingExchange exchange;
    forward(embedding, items({{1}, {2}}), exchange);
    std::string error;
    try {
      const bool bad = communicator.rank() == 1;
      forward(embedding,
              items(bad ? std::vector<Ids>{{0}, {}, {1, 2, 4, 9}} : std::vector<Ids>{{1}}),
              exchange);
    } catch (const Error& thrown) {
      EXPECT_EQ(thrown.kind(), ErrorKind::kUsage);
      error = thrown.what();
    }
    forward(embedding, items({{3}}), exchange);
    expect_rows(exchange.output(0), {300}, {1});
    throw Error(error);
  });
  expect_on_every_rank(errors,
                       "rank 1: feature \"item\": sample (bag) 2 has id 4 at position 2, but table "
                       "\"items\" has 4 rows");
}

TEST_P(EveryType, InvalidIdsAreDroppedOrSentToTheLastRow) {
  const EmbeddingTable table = make_table(PoolingType::kMean);
  for (const InvalidIds policy : {InvalidIds::kDrop, InvalidIds::kOov}) {
    run_ranks(world_of(GetParam(), 2), [&](Communicator& communicator) {
      ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()),
                                 sgd(policy), communicator, cpu());
      set_weights(embedding);
      EmbeddingExchange exchange;
      if (communicator.rank() == 0) {
        forward(embedding, items({{1}}), exchange);
        EXPECT_EQ(embedding.invalid_ids(), 0);
        return;
      }
      forward(embedding, items({{-1}, {4, 1}, {2}}), exchange);
      EXPECT_EQ(embedding.invalid_ids(), 2);
      if (policy == InvalidIds::kDrop) {
        expect_rows(exchange.output(0), {0, 100, 200}, {0, 1, 1});  // a mean of what is left
      } else {
        expect_rows(exchange.output(0), {300, 200, 200}, {1, 1, 1});
      }
    });
  }
}

TEST_P(EveryType, TwoBatchesInFlight) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(GetParam(), 2), [&](Communicator& communicator) {
    ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()), sgd(),
                               communicator, cpu());
    set_weights(embedding);
    EmbeddingExchange first, second;
    embedding.input_dist(items({{1}}), first, cpu());
    embedding.input_dist(items({{2}, {3}}), second, cpu());
    embedding.lookup(first, cpu());
    embedding.output_dist(first, cpu());
    embedding.lookup(second, cpu());
    embedding.output_dist(second, cpu());
    expect_rows(first.output(0), {100}, {1});
    expect_rows(second.output(0), {200, 300}, {1, 1});
  });
}

TEST_P(EveryType, InitialWeightsDoNotDependOnThePlan) {
  const EmbeddingTable table{.name = "big", .num_rows = 1000, .dim = 10, .features = {"item"}};
  constexpr float kScale = 0.0316227766f;  // 1 / sqrt(1000)
  const auto build = [&](int world_size, ShardingType type) {
    Floats all(10000);
    run_ranks(world_size, [&](Communicator& communicator) {
      ShardedEmbedding embedding({table}, plan_of(table, type, world_size), sgd(), communicator,
                                 cpu());
      for (int turn = 0; turn < world_size; ++turn) {
        communicator.barrier("turn");
        if (turn != communicator.rank()) continue;
        for (const LocalShard& s : embedding.local_shards()) {
          const MatrixView<float> weights = host_view(s.weights, cpu());
          for (std::int64_t r = 0; r < weights.rows; ++r) {
            std::copy_n(weights.row(r), weights.cols,
                        all.begin() + (s.shard.row_begin + r) * 10 + s.shard.column_begin);
          }
        }
      }
    });
    return all;
  };
  const Floats all = build(world_of(GetParam(), 3), GetParam());
  EXPECT_EQ(all, build(1, ShardingType::kTableWise));
  const auto [least, most] = std::minmax_element(all.begin(), all.end());
  EXPECT_GE(*least, -kScale);
  EXPECT_LT(*most, kScale);
  // 10,000 draws: the extremes are within 1 % of the ends, the mean within 4 standard errors, and
  // no value comes twice more often than 24 bits allow.
  EXPECT_LT(*least, -0.99f * kScale);
  EXPECT_GT(*most, 0.99f * kScale);
  double sum = 0;
  for (const float x : all) sum += x;
  EXPECT_LT(std::abs(sum / 10000), 4 * kScale / std::sqrt(3.0) / 100);
  Floats sorted = all;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_LT(std::unique(sorted.begin(), sorted.end()) - sorted.begin(), 10001);
  EXPECT_GT(std::unique(sorted.begin(), sorted.end()) - sorted.begin(), 9980);
}

TEST_P(EveryType, BuffersSettle) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(GetParam(), 2), [&](Communicator& communicator) {
    EmbeddingOptions options;
    ShardedEmbedding embedding({table}, plan_of(table, GetParam(), communicator.size()), options,
                               communicator, cpu());
    EmbeddingExchange exchange;
    EXPECT_EQ(exchange.bytes(), 0);
    std::int64_t settled = 0;
    for (int step = 1; step <= 5; ++step) {
      forward(embedding, items(std::vector<Ids>(7, {1, 2, 3, 3}), Floats(28, 0.5f)), exchange);
      embedding.output_dist_backward(exchange, cpu());
      embedding.update(exchange, step, cpu());
      if (step == 1) settled = exchange.bytes();
    }
    EXPECT_EQ(exchange.bytes(), settled);
    EXPECT_GE(settled, 2 * 7 * 8 * 4);  // at least the outputs and their gradients
  });
}

INSTANTIATE_TEST_SUITE_P(Types, EveryType, testing::ValuesIn(kTypes),
                         [](const auto& p) { return to_string(p.param); });

TEST(ShardedEmbeddingTest, BytesOfTheTables) {
  const EmbeddingTable table = make_table();
  const auto bytes = [&](ShardingType type, SparseOptimizer optimizer) {
    std::pair<std::int64_t, std::int64_t> result;
    run_ranks(2, [&](Communicator& communicator) {
      EmbeddingOptions options;
      options.optimizer.type = optimizer;
      ShardedEmbedding embedding({table}, plan_of(table, type, 2), options, communicator, cpu());
      if (communicator.rank() == 0)
        result = {embedding.weight_bytes(), embedding.optimizer_bytes()};
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
      ShardedEmbedding embedding({table}, plan, sgd(), communicator, cpu());
      EmbeddingExchange exchange;
      const bool has_ids = communicator.rank() == 0;
      forward(embedding, has_ids ? items({{0, 3}, {1, 2}, {2}}) : items({}), exchange);
      of_rank[communicator.rank()] = embedding.bytes_between_nodes(exchange);
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
    ShardedEmbedding embedding(tables, default_plan(tables, 1), sgd(), communicator, cpu());
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
      ShardedEmbedding embedding(own_tables, plan, options, communicator, cpu());
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
      ShardedEmbedding(tables, plan, sgd(), communicator, cpu());
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
    ShardedEmbedding embedding({table}, plan_of(table, ShardingType::kRowWise, 3), sgd(),
                               communicator, cpu());
  });
  expect_on_every_rank(errors, "sharding plan: world_size: is 3, but there are 2 ranks");
}

TEST(Disagreement, FeatureMissingOnOneRankIsAnErrorOnAll) {
  const EmbeddingTable table = make_table();
  const auto errors = errors_of(2, [&](Communicator& communicator) {
    ShardedEmbedding embedding({table}, plan_of(table, ShardingType::kDataParallel, 2), sgd(),
                               communicator, cpu());
    EmbeddingExchange exchange;
    const char* key = communicator.rank() == 1 ? "itme" : "item";
    embedding.input_dist(KeyedJaggedTensor::from_offsets({key}, {{1, 2}}, {{0, 2}}, cpu()),
                         exchange, cpu());
  });
  expect_on_every_rank(errors, "rank 1: no feature \"item\" (there are: itme)");
}

TEST(Disagreement, WeightsOnSomeRanksOnly) {
  const EmbeddingTable table = make_table();
  for (const auto type : {ShardingType::kRowWise, ShardingType::kTableRowWise}) {
    const auto errors = errors_of(4, [&](Communicator& communicator) {
      ShardedEmbedding embedding({table}, plan_of(table, type, 4), sgd(), communicator, cpu());
      EmbeddingExchange exchange;
      const Floats weights = communicator.rank() == 1 ? Floats{1, 2} : Floats{};
      embedding.input_dist(items({{1, 2}}, weights), exchange, cpu());
    });
    expect_on_every_rank(errors, "the batch of rank 1 has weights and that of rank 0 has none");
  }
}

}  // namespace
}  // namespace serrate
