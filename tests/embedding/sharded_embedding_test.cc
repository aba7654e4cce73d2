#include "serrate/sharded_embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/embedding/stochastic_rounding.h"
#include "src/embedding/init_weights.h"
#include "tests/embedding/one_table.h"
#include "tests/support/devices.h"

namespace serrate {
namespace {

class EveryType : public testing::TestWithParam<std::tuple<Device, ShardingType>> {
 protected:
  ShardingType type() const { return std::get<ShardingType>(GetParam()); }
  Rank rank_of(const EmbeddingTable& table, const EmbeddingOptions& options,
               Communicator& communicator) const {
    return {{table},
            plan_of(table, type(), communicator.size()),
            options,
            communicator,
            std::get<Device>(GetParam())};
  }
};

TEST_P(EveryType, SumsAndTheirUpdate) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
    Rank rank = rank_of(table, sgd(), communicator);
    rank.set_weights();
    if (communicator.rank() == 0) {
      rank.forward({{0, 3}});
      rank.expect_rows({300}, {2});
    } else if (communicator.rank() > 1) {
      rank.forward({});
    } else {
      rank.forward({{}, {2, 2, 1}});
      rank.expect_rows({0, 500}, {0, 3});
    }
    rank.backward(5, 1);
    // Each occurrence takes 1.0 x 5 off its row.
    rank.forward({{0}, {1}, {2}, {3}});
    rank.expect_rows({-5, 95, 190, 295}, {1, 1, 1, 1});
  });
}

// By the definitions: what is drawn goes by seed, table, step, and row and column in the table.
TEST_P(EveryType, TablesOf16BitsAreRounded) {
  constexpr float kGradient = 0.37f;
  constexpr std::int64_t kStep = 5;
  const EmbeddingTable exact_table = make_table();
  EmbeddingOptions options = sgd();
  options.seed = 7;
  for (const DataType data_type : {DataType::kFloat16, DataType::kBFloat16}) {
    const bool is_half = data_type == DataType::kFloat16;
    EmbeddingTable table = exact_table;
    table.data_type = data_type;
    const PhiloxDraw draw =
        rounding_draw({.seed = options.seed, .table = random_stream(table)}, kStep);
    run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
      Rank rank = rank_of(table, options, communicator);
      Rank exact = rank_of(exact_table, options, communicator);
      const auto shards = rank.embedding.local_shards(),
                 exact_shards = exact.embedding.local_shards();
      std::vector<Floats> first;
      for (std::size_t s = 0; s < shards.size(); ++s) {
        EXPECT_EQ(shards[s].weights.type, data_type);
        first.push_back(on_host(shards[s].weights, rank.stream));
        Floats nearest = on_host(exact_shards[s].weights, exact.stream);
        for (float& w : nearest) w = is_half ? float(Float16(w)) : float(BFloat16(w));
        EXPECT_EQ(first[s], nearest);
      }
      rank.forward(communicator.rank() == 0 ? std::vector<Ids>{{0}, {1}, {2}, {3}}
                                            : std::vector<Ids>());
      rank.backward(kGradient, kStep);
      for (std::size_t s = 0; s < shards.size(); ++s) {
        const Shard& shard = shards[s].shard;
        Floats expected;
        for (std::int64_t r = shard.row_begin; r < shard.row_end; ++r) {
          for (std::int64_t c = shard.column_begin; c < shard.column_end; ++c) {
            const auto word = std::bit_cast<std::uint32_t>(first[s][expected.size()] - kGradient);
            const std::uint32_t random = philox4x32(
                {static_cast<std::uint32_t>(r), 0, static_cast<std::uint32_t>(c / 4), draw.site},
                draw.key)[c % 4];
            Float16 half;
            BFloat16 brain;
            half.bits = round_to_float16(word, random);
            brain.bits = round_to_bfloat16(word, random);
            expected.push_back(is_half ? float(half) : float(brain));
          }
        }
        EXPECT_EQ(on_host(shards[s].weights, rank.stream), expected);
      }
    });
  }
}

TEST_P(EveryType, WeightedMeans) {
  const EmbeddingTable table = make_table(PoolingType::kMean);
  run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
    Rank rank = rank_of(table, sgd(), communicator);
    rank.set_weights();
    // A rank without ids cannot tell whether the batch is weighted.
    if (communicator.rank() == 0) {
      rank.forward({{1, 3}, {2}}, {2.0f, 0.5f, 3.0f});
      rank.expect_rows({(200 + 150) / 2.0f, 600}, {1.25f, 3});
    } else {
      rank.forward({{}});
      rank.expect_rows({0}, {0});
    }
    rank.backward(4, 1);
    // Row 1: 4 x 2 / 2, row 3: 4 x 0.5 / 2, row 2: 4 x 3.
    rank.forward({{0}, {1}, {2}, {3}});
    rank.expect_rows({0, 96, 188, 299}, {1, 1, 1, 1});
  });
}

TEST_P(EveryType, BatchesWithoutIdsAndWithoutBags) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(type(), 3), [&](Communicator& communicator) {
    Rank rank = rank_of(table, sgd(), communicator);
    rank.set_weights();
    const std::vector<std::vector<Ids>> batches{{}, {{}}, {{2}}};
    for (int step = 1; step <= 3; ++step) {
      const auto& bags = batches[(communicator.rank() + step) % 3];
      rank.forward(bags);
      EXPECT_EQ(rank.exchange.output(0).rows, std::ssize(bags));
      rank.backward(1, step);
    }
    rank.forward({});  // no rank has anything
    rank.backward(1, 4);
    rank.forward({{2}, {1}});
    // Each rank had {2} once.
    rank.expect_rows({200.0f - static_cast<float>(communicator.size()), 100}, {1, 1});
  });
}

TEST_P(EveryType, InvalidIdIsTheSameErrorOnEveryRankAndTrainingCanGoOn) {
  const EmbeddingTable table = make_table();
  const auto errors = errors_of(world_of(type(), 3), [&](Communicator& communicator) {
    Rank rank = rank_of(table, sgd(), communicator);
    rank.set_weights();
    rank.forward({{1}, {2}});
    std::string error;
    try {
      const bool bad = communicator.rank() == 1;
      rank.forward(bad ? std::vector<Ids>{{0}, {}, {1, 2, 4, 9}} : std::vector<Ids>{{1}});
    } catch (const Error& thrown) {
      EXPECT_EQ(thrown.kind(), ErrorKind::kUsage);
      error = thrown.what();
    }
    rank.forward({{3}});
    rank.expect_rows({300}, {1});
    throw Error(error);
  });
  expect_on_every_rank(errors,
                       "rank 1: feature \"item\": sample (bag) 2 has id 4 at position 2, but table "
                       "\"items\" has 4 rows");
}

TEST_P(EveryType, InvalidIdsAreDroppedOrSentToTheLastRow) {
  const EmbeddingTable table = make_table(PoolingType::kMean);
  for (const InvalidIds policy : {InvalidIds::kDrop, InvalidIds::kOov}) {
    run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
      Rank rank = rank_of(table, sgd(policy), communicator);
      rank.set_weights();
      if (communicator.rank() == 0) {
        rank.forward({{1}});
        EXPECT_EQ(rank.embedding.invalid_ids(), 0);
        return;
      }
      rank.forward({{-1}, {4, 1}, {2}});
      EXPECT_EQ(rank.embedding.invalid_ids(), 2);
      if (policy == InvalidIds::kDrop) {
        rank.expect_rows({0, 100, 200}, {0, 1, 1});  // a mean of what is left
      } else {
        rank.expect_rows({300, 200, 200}, {1, 1, 1});
      }
    });
  }
}

TEST_P(EveryType, TwoBatchesInFlight) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
    Rank rank = rank_of(table, sgd(), communicator);
    rank.set_weights();
    EmbeddingExchange first, second;
    rank.embedding.input_dist(items({{1}}, {}, rank.stream), first, rank.stream);
    rank.embedding.input_dist(items({{2}, {3}}, {}, rank.stream), second, rank.stream);
    rank.look_up(first);
    rank.look_up(second);
    rank.expect_rows(first, {100}, {1});
    rank.expect_rows(second, {200, 300}, {1, 1});
  });
}

TEST_P(EveryType, ABatchIsSentWhileTheOneBeforeIsInItsStep) {
  const EmbeddingTable table = make_table();
  run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
    const Stream input_stream(std::get<Device>(GetParam()));
    Rank rank = rank_of(table, sgd(InvalidIds::kDrop), communicator);
    rank.set_weights();
    EmbeddingInput ahead;
    const auto send = [&](const std::vector<Ids>& bags) {
      rank.embedding.input_dist(items(bags, {}, input_stream), ahead, input_stream);
    };
    send({{1}, {2, 3}});
    rank.exchange.take(ahead, rank.stream);
    rank.look_up(rank.exchange);
    send({{2}, {4}, {3}});
    rank.expect_rows({100, 500}, {1, 2});
    rank.backward(5, 1);
    EXPECT_EQ(rank.embedding.invalid_ids(), 0);  // of the steps begun
    rank.exchange.take(ahead, rank.stream);
    rank.look_up(rank.exchange);
    const auto taken_off = static_cast<float>(5 * communicator.size());
    rank.expect_rows({200 - taken_off, 0, 300 - taken_off}, {1, 0, 1});
    EXPECT_EQ(rank.embedding.invalid_ids(), 1);
    EXPECT_THROW(rank.exchange.take(ahead, rank.stream), Error);  // nothing was sent
    rank.stream.synchronize();
  });
}

TEST_P(EveryType, InitialWeightsDoNotDependOnThePlan) {
  const EmbeddingTable table{.name = "big", .num_rows = 1000, .dim = 10, .features = {"item"}};
  constexpr float kScale = 0.0316227766f;  // 1 / sqrt(1000)
  const auto weights_of = [&](int world_size, const std::function<Rank(Communicator&)>& make) {
    Floats all(10000);
    run_ranks(world_size, [&](Communicator& communicator) {
      Rank rank = make(communicator);
      for (int turn = 0; turn < world_size; ++turn) {
        communicator.barrier("turn");
        if (turn != communicator.rank()) continue;
        for (const LocalShard& s : rank.embedding.local_shards()) {
          const Floats weights = on_host(s.weights, rank.stream);
          for (std::int64_t r = 0; r < s.weights.rows; ++r) {
            std::copy_n(weights.begin() + r * s.weights.cols, s.weights.cols,
                        all.begin() + (s.shard.row_begin + r) * 10 + s.shard.column_begin);
          }
        }
      }
    });
    return all;
  };
  const Floats all = weights_of(world_of(type(), 3), [&](Communicator& communicator) {
    return rank_of(table, sgd(), communicator);
  });
  EXPECT_EQ(all, weights_of(1, [&](Communicator& communicator) {
              return Rank({table}, plan_of(table, ShardingType::kTableWise, 1), sgd(),
                          communicator);
            }));
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
  run_ranks(world_of(type(), 2), [&](Communicator& communicator) {
    Rank rank = rank_of(table, {}, communicator);
    EXPECT_EQ(rank.exchange.bytes(), 0);
    std::int64_t settled = 0;
    for (int step = 1; step <= 5; ++step) {
      rank.forward(std::vector<Ids>(7, {1, 2, 3, 3}), Floats(28, 0.5f));
      rank.backward(1, step);
      if (step == 1) settled = rank.exchange.bytes();
    }
    EXPECT_EQ(rank.exchange.bytes(), settled);
    EXPECT_GE(settled, 2 * 7 * 8 * 4);  // at least the outputs and their gradients
  });
}

INSTANTIATE_TEST_SUITE_P(Types, EveryType,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::ValuesIn(kTypes)),
                         [](const auto& p) { return to_string(std::get<ShardingType>(p.param)); });

}  // namespace
}  // namespace serrate
