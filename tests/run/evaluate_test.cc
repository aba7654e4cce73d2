// HR and NDCG of evaluate() against a ranking by the model's definition in double precision, from
// the weights of the checkpoint and the events of the dataset alone; and a case done by hand.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "serrate/trainer.h"
#include "src/data/dataset.h"
#include "src/data/dataset_writer.h"
#include "src/data/generate.h"
#include "src/io/hdf5_file.h"
#include "tests/reference/sasrec.h"
#include "tests/support/run_ranks.h"
#include "tests/support/seal.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using reference::Matrix;
using testing::TemporaryFolder;

constexpr std::int64_t kSteps = 8;

reference::Sasrec model_of(const TrainOptions& options) {
  const Hdf5File file =
      Hdf5File::open(fmt::format("{}/checkpoint/step_{}/rank0.h5", options.output, kSteps));
  const auto matrix = [&](const std::string& dataset) {
    const auto shape = file.dataset<float>(dataset);
    const std::vector<float> values = file.read<float>(dataset);
    Matrix result(shape.rows(), shape.columns());
    std::ranges::copy(values, result.values.begin());
    return result;
  };
  reference::Sasrec model;
  model.options = options.model;
  model.items = matrix("/shards/0/weights");
  for (int i = 0; file.contains(fmt::format("/tensors/0/{}", i)); ++i) {
    const std::string dataset = fmt::format("/tensors/0/{}", i);
    model.parameters[file.read_text(dataset, "name")] = matrix(dataset);
  }
  return model;
}

double score(const Matrix& hidden, std::int64_t row, const Matrix& items, std::int64_t item,
             bool by_cosine) {
  double product = 0, square = 0;
  for (std::int64_t c = 0; c < items.cols; ++c) {
    product += hidden(row, c) * items(item, c);
    square += items(item, c) * items(item, c);
  }
  return by_cosine ? product / std::sqrt(square) : product;
}

/// From 1, for every user's last item after all before it; 0 when filtering leaves it out.
std::vector<std::int64_t> ranks_by_definition(const reference::Sasrec& model,
                                              const Dataset& dataset, bool filter_seen) {
  std::vector<std::int64_t> ranks, items;
  const std::int64_t longest = model.options.max_length;
  for (std::int64_t user = 0; user < dataset.num_users(); ++user) {
    dataset.read_items(dataset.user_offsets()[user], dataset.user_offsets()[user + 1], items);
    if (items.size() < 2) continue;
    const std::int64_t target = items.back();
    items.pop_back();
    std::vector<reference::Sasrec::Token> tokens;
    for (auto at = items.end() - std::min(std::ssize(items), longest); at != items.end(); ++at) {
      tokens.push_back({.item = *at, .others = {}, .target = 0});
    }
    const Matrix hidden = model.hidden_states(tokens);
    const auto of = [&](std::int64_t item) {
      return score(hidden, hidden.rows - 1, model.items, item, model.options.l2_normalize);
    };
    const auto is_seen = [&](std::int64_t item) {
      return filter_seen && std::ranges::count(items, item) > 0;
    };
    std::int64_t rank = 1;
    for (std::int64_t item = 0; item < model.items.rows; ++item) {
      if (item != target && !is_seen(item) && of(item) > of(target)) ++rank;
    }
    ranks.push_back(is_seen(target) ? 0 : rank);
  }
  return ranks;
}

void expect_metrics(const std::vector<std::int64_t>& ranks, const EvaluationResult& result,
                    std::int64_t cutoff) {
  double hits = 0, gain = 0;
  for (const std::int64_t rank : ranks) {
    if (rank < 1 || rank > cutoff) continue;
    hits += 1;
    gain += 1 / std::log2(static_cast<double>(rank) + 1);
  }
  const auto& [name, metrics] = result.scorers.front();
  EXPECT_EQ(name, "model");
  const auto users = static_cast<double>(ranks.size());
  EXPECT_NEAR(metrics.at(fmt::format("hr@{}", cutoff)), hits / users, 1e-12) << cutoff;
  EXPECT_NEAR(metrics.at(fmt::format("ndcg@{}", cutoff)), gain / users, 1e-12) << cutoff;
}

struct Case {
  std::string name;
  bool by_cosine, filter_seen;
  int ranks;
};

class EvaluateTest : public ::testing::TestWithParam<Case> {};

TEST_P(EvaluateTest, RanksAsTheDefinitionDoes) {
  const auto& [name, by_cosine, filter_seen, ranks] = GetParam();
  const TemporaryFolder folder;
  const std::string data = folder.file("data.h5");
  generate({.output = data, .users = 70, .items = 40, .events = 1500, .seed = 4});
  TrainOptions options;
  options.data = data;
  options.output = folder.file("run");
  options.steps = kSteps;
  options.batch_size = 16;
  options.negatives = 20;
  options.sparse_optimizer.learning_rate = 0.5f;
  options.model = {.dim = 8,
                   .num_blocks = 1,
                   .num_heads = 2,
                   .max_length = 9,  // most histories are longer
                   .l2_normalize = by_cosine};
  run_ranks(1, [&](Communicator& communicator) {
    Trainer trainer(options, communicator);
    const std::atomic<bool> never_stop{false};
    trainer.run(never_stop, [](const StepResult&) {});
  });

  const std::vector<std::int64_t> expected =
      ranks_by_definition(model_of(options), Dataset::open(data), filter_seen);
  ASSERT_GT(std::ranges::count_if(expected, [](std::int64_t rank) { return rank > 0; }), 20);
  EXPECT_GT(std::ranges::max(expected), 10);  // a cutoff decides something
  run_ranks(ranks, [&](Communicator& communicator) {
    const EvaluationResult result = evaluate({.data = data,
                                              .model = options.output,
                                              .cutoffs = {1, 5, 10, 40},
                                              .filter_seen = filter_seen,
                                              .batch_size = 32},
                                             communicator);
    EXPECT_EQ(result.users, std::ssize(expected));
    for (const std::int64_t cutoff : {1, 5, 10, 40}) expect_metrics(expected, result, cutoff);
  });
}

INSTANTIATE_TEST_SUITE_P(Rankings, EvaluateTest,
                         ::testing::Values(Case{"DotProduct", false, false, 1},
                                           Case{"DotProductThreeRanks", false, false, 3},
                                           Case{"CosineWithoutSeenItems", true, true, 2}),
                         [](const auto& each) { return each.param.name; });

const std::vector<std::vector<std::int64_t>> kItemsOfUsers{
    {0, 0, 1, 0}, {0, 1, 2, 1}, {0, 1, 3}, {2, 3, 2}};

void write_four_users(const std::string& data) {
  DatasetSpec spec;
  spec.num_users = std::ssize(kItemsOfUsers);
  spec.features.push_back({"item", 4});
  for (const auto& items : kItemsOfUsers) spec.num_events += std::ssize(items);
  DatasetWriter writer(data, spec);
  for (const auto& items : kItemsOfUsers) {
    std::vector<std::int64_t> times;
    for (std::size_t i = 0; i < items.size(); ++i) times.push_back(std::ssize(times));
    writer.append_user({times, {}, {{items, {}}}});
  }
  writer.commit();
}

TrainOptions one_step(const std::string& data, const std::string& run) {
  TrainOptions options;
  options.data = data;
  options.output = run;
  options.steps = 1;
  options.batch_size = 4;
  options.negatives = 0;
  options.model = {.dim = 4, .num_blocks = 1, .num_heads = 1, .max_length = 4};
  return options;
}

// Items 0, 1, 2, ... were bought 4, 3, 2 and 1 times before the last event of a user: popularity
// ranks them in this order. The last items are 0, 1, 3 and 2: ranks 1, 2, 4 and 3.
TEST(EvaluateByHandTest, PopularityOfFourUsers) {
  const TemporaryFolder folder;
  const std::string data = folder.file("data.h5");
  write_four_users(data);
  const TrainOptions options = one_step(data, folder.file("run"));
  run_ranks(1, [&](Communicator& communicator) {
    {
      Trainer trainer(options, communicator);
      const std::atomic<bool> never_stop{false};
      trainer.run(never_stop, [](const StepResult&) {});
    }
    const EvaluationResult result =
        evaluate({.data = data, .model = options.output, .cutoffs = {1, 2, 3}}, communicator);
    const auto popularity = std::ranges::find(result.scorers, "popularity",
                                              [](const auto& scorer) { return scorer.first; });
    ASSERT_NE(popularity, result.scorers.end());
    const auto& metrics = popularity->second;
    EXPECT_DOUBLE_EQ(metrics.at("hr@1"), 0.25);
    EXPECT_DOUBLE_EQ(metrics.at("ndcg@1"), 0.25);
    EXPECT_DOUBLE_EQ(metrics.at("hr@2"), 0.5);
    EXPECT_NEAR(metrics.at("ndcg@2"), (1 + std::log(2.0) / std::log(3.0)) / 4, 1e-12);
    EXPECT_DOUBLE_EQ(metrics.at("hr@3"), 0.75);
    EXPECT_NEAR(metrics.at("ndcg@3"), (1 + std::log(2.0) / std::log(3.0) + 0.5) / 4, 1e-12);
  });
}

class EvaluateInvalidIdsTest : public ::testing::TestWithParam<InvalidIds> {};

// The last item of user 2 is none, and the history of user 0 has none. The others' have 2 twice,
// then 0 and 3 once, in that order, and never 1: popularity ranks them 2, 0, 3, 1. What came after
// the last items of histories: 3 after 2, where user 1 has bought 1; nothing after 3.
TEST_P(EvaluateInvalidIdsTest, AreLeftOutAsTheTrainingDid) {
  const TemporaryFolder folder;
  const std::string data = folder.file("data.h5");
  write_four_users(data);
  std::string content = testing::read_file(data);
  const auto bytes_of = [](const std::vector<std::int64_t>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * 8);
  };
  const std::string valid = bytes_of({0, 0, 1, 0, 0, 1, 2, 1, 0, 1, 3});
  const std::size_t at = content.find(valid);
  ASSERT_NE(at, std::string::npos);
  content.replace(at, valid.size(), bytes_of({-1, -1, 4, 0, 0, -7, 2, 1, 0, 1, 9}));
  testing::write_sealed(data, content);
  TrainOptions options = one_step(data, folder.file("run"));
  options.invalid_ids = GetParam();
  const bool drops = GetParam() == InvalidIds::kDrop;
  const double users = drops ? 2 : 3;  // user 0 has a row for invalid ids, or nothing
  run_ranks(2, [&](Communicator& communicator) {
    const std::atomic<bool> never_stop{false};
    Trainer(options, communicator).run(never_stop, [](const StepResult&) {});
    EvaluateOptions evaluated{.data = data, .model = options.output, .cutoffs = {1, 2, 3, 4}};
    EvaluationResult result = evaluate(evaluated, communicator);
    EXPECT_EQ(result.users, users);
    EXPECT_EQ(result.scorers[0].second.at("hr@4"), 1);  // among four items, by the model
    for (const std::size_t scorer : {1, 3}) {           // popularity, Markov
      const auto& metrics = result.scorers[scorer].second;
      EXPECT_DOUBLE_EQ(metrics.at("hr@1"), 1 / users);                // user 3
      EXPECT_DOUBLE_EQ(metrics.at("hr@2"), (drops ? 1 : 2) / users);  // user 0
      EXPECT_DOUBLE_EQ(metrics.at("hr@3"), metrics.at("hr@2"));
      EXPECT_DOUBLE_EQ(metrics.at("hr@4"), 1);  // user 1
    }
    EXPECT_DOUBLE_EQ(result.scorers[2].second.at("hr@4"),
                     1 / users);  // user 3 has bought the item before
    // User 1 has seen 0 and 2, which leaves 3 and 1; user 3 has seen the target.
    evaluated.filter_seen = true;
    result = evaluate(evaluated, communicator);
    EXPECT_DOUBLE_EQ(result.scorers[0].second.at("hr@4"), 1 - 1 / users);
    EXPECT_EQ(result.scorers[1].second.at("hr@1"), 0);
    EXPECT_DOUBLE_EQ(result.scorers[1].second.at("hr@2"), 1 - 1 / users);
  });
}

INSTANTIATE_TEST_SUITE_P(Policies, EvaluateInvalidIdsTest,
                         ::testing::Values(InvalidIds::kDrop, InvalidIds::kOov),
                         [](const auto& each) { return to_string(each.param); });

}  // namespace
}  // namespace serrate
