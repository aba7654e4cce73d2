// HR and NDCG of evaluate() against a ranking by the model's definition in double precision, from
// the weights of the checkpoint and the events of the dataset alone; and a case done by hand.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
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

using Users = std::vector<std::vector<std::int64_t>>;  // the items of each, as stored

Users users_of(const Dataset& dataset) {
  Users users(dataset.num_users());
  for (std::int64_t user = 0; user < dataset.num_users(); ++user) {
    dataset.read_items(dataset.user_offsets()[user], dataset.user_offsets()[user + 1], users[user],
                       UnknownIds::kKeep);
  }
  return users;
}

/// What the ranking by definition is given beside the model.
struct Definition {
  std::int64_t num_items = 0;
  bool filter_seen = false;
  InvalidIds invalid_ids = InvalidIds::kError;
};

/// The model reads the latest events; of invalid ids among them nothing, or the row behind items.
std::vector<reference::Sasrec::Token> tokens_of(std::span<const std::int64_t> history,
                                                const Definition& definition, std::size_t longest) {
  std::vector<reference::Sasrec::Token> tokens;
  for (const std::int64_t id : history.last(std::min(history.size(), longest))) {
    const bool is_item = 0 <= id && id < definition.num_items;
    if (!is_item && definition.invalid_ids == InvalidIds::kDrop) continue;
    tokens.push_back({.item = is_item ? id : definition.num_items, .others = {}, .target = 0});
  }
  return tokens;
}

/// From 1, for every user's last item after all before it; 0 when filtering leaves it out. Users
/// without a valid one, or of whose history the model reads nothing, are not ranked.
std::vector<std::int64_t> ranks_by_definition(const reference::Sasrec& model, const Users& users,
                                              const Definition& definition) {
  std::vector<std::int64_t> ranks;
  for (std::vector<std::int64_t> items : users) {
    if (items.size() < 2) continue;
    const std::int64_t target = items.back();
    items.pop_back();
    const auto tokens = tokens_of(items, definition, model.options.max_length);
    if (target < 0 || target >= definition.num_items || tokens.empty()) continue;
    const Matrix hidden = model.hidden_states(tokens);
    const auto of = [&](std::int64_t item) {
      return score(hidden, hidden.rows - 1, model.items, item, model.options.l2_normalize);
    };
    const auto is_seen = [&](std::int64_t item) {
      return definition.filter_seen && std::ranges::count(items, item) > 0;
    };
    std::int64_t rank = 1;
    for (std::int64_t item = 0; item < definition.num_items; ++item) {
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
  InvalidIds invalid_ids = InvalidIds::kError;
};

/// The dataset with `items` in place of its own, those of all users one after the other.
void replace_items(const std::string& data, const Users& items) {
  const auto bytes_of = [](const Users& users) {
    std::string bytes;
    for (const auto& values : users) {
      bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * 8);
    }
    return bytes;
  };
  std::string content = testing::read_file(data);
  const std::string old = bytes_of(users_of(Dataset::open(data)));
  const std::size_t at = content.find(old);
  ASSERT_NE(at, std::string::npos);
  content.replace(at, old.size(), bytes_of(items));
  testing::write_sealed(data, content);
}

/// Makes a fourth of the ids invalid, and of every seventh user all but the oldest and the last.
void spoil_items(const std::string& data) {
  Users users = users_of(Dataset::open(data));
  std::int64_t n = 0;
  for (std::size_t user = 0; user < users.size(); ++user) {
    std::vector<std::int64_t>& items = users[user];
    for (std::size_t i = 0; i < items.size(); ++i) {
      const bool is_between = 0 < i && i + 1 < items.size();
      if (user % 7 == 0 ? is_between : ++n % 4 == 0) items[i] = n % 8 == 0 ? -1 : 40 + n;
    }
  }
  replace_items(data, users);
}

class EvaluateTest : public ::testing::TestWithParam<Case> {};

TEST_P(EvaluateTest, RanksAsTheDefinitionDoes) {
  const auto& [name, by_cosine, filter_seen, ranks, invalid_ids] = GetParam();
  const TemporaryFolder folder;
  const std::string data = folder.file("data.h5");
  generate({.output = data, .users = 70, .items = 40, .events = 1500, .seed = 4});
  if (invalid_ids != InvalidIds::kError) spoil_items(data);
  TrainOptions options;
  options.data = data;
  options.output = folder.file("run");
  options.steps = kSteps;
  options.batch_size = 16;
  options.negatives = 20;
  options.invalid_ids = invalid_ids;
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

  const Users users = users_of(Dataset::open(data));
  const std::vector<std::int64_t> expected =
      ranks_by_definition(model_of(options), users, {40, filter_seen, invalid_ids});
  const auto with_history =
      std::ranges::count_if(users, [](const auto& items) { return items.size() >= 2; });
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
    EXPECT_EQ(result.users_left_out, with_history - std::ssize(expected));
    for (const std::int64_t cutoff : {1, 5, 10, 40}) expect_metrics(expected, result, cutoff);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Rankings, EvaluateTest,
    ::testing::Values(Case{"DotProduct", false, false, 1},
                      Case{"DotProductThreeRanks", false, false, 3},
                      Case{"CosineWithoutSeenItems", true, true, 2},
                      Case{"DropsInvalidIds", false, true, 2, InvalidIds::kDrop},
                      Case{"InvalidIdsHaveARow", false, false, 1, InvalidIds::kOov}),
    [](const auto& each) { return each.param.name; });

const Users kItemsOfUsers{{0, 0, 1, 0}, {0, 1, 2, 1}, {0, 1, 3}, {2, 3, 2}};

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

// User 2's last item is invalid, and so are all items of user 0's history. The others' have 2
// twice, then 0 and 3 once, in that order, and never 1: popularity ranks them 2, 0, 3, 1. What came
// after the last items of histories: 3 after 2, where user 1 has bought 1; nothing after 3.
TEST_P(EvaluateInvalidIdsTest, AreLeftOutAsTheTrainingDid) {
  const TemporaryFolder folder;
  const std::string data = folder.file("data.h5");
  write_four_users(data);
  replace_items(data, {{-1, -1, 4, 0}, {0, -7, 2, 1}, {0, 1, 9}, {2, 3, 2}});
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
    EXPECT_EQ(result.users_left_out, drops ? 2 : 1);
    EXPECT_NE(to_json(result).find(drops ? "\"users_left_out\": 2" : "\"users_left_out\": 1"),
              std::string::npos);
    for (const std::size_t scorer : {1, 3}) {  // popularity, Markov
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

// Users 0, 1 and 3 have nothing but invalid ids before their last item, and that of user 2 is one.
TEST(EvaluateByHandTest, SaysThatNoUserIsLeft) {
  const TemporaryFolder folder;
  const std::string data = folder.file("data.h5");
  write_four_users(data);
  replace_items(data, {{-1, -1, -1, 0}, {-1, -1, -1, 1}, {0, 1, 9}, {-1, -1, 2}});
  TrainOptions options = one_step(data, folder.file("run"));
  options.invalid_ids = InvalidIds::kDrop;
  run_ranks(1, [&](Communicator& communicator) {
    const std::atomic<bool> never_stop{false};
    Trainer(options, communicator).run(never_stop, [](const StepResult&) {});
    const std::string message = testing::message_of<Error>(
        [&] { evaluate({.data = data, .model = options.output}, communicator); });
    EXPECT_EQ(message, data +
                           ": no user is left to evaluate: 4 have an invalid target or no valid "
                           "history");
  });
}

}  // namespace
}  // namespace serrate
