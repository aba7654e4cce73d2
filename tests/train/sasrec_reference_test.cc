// A training step against SASRec by its definition in double precision: the loss, every gradient
// (the definition's by central differences), and what the optimizers make of them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "src/train/train_step.h"
#include "tests/reference/sasrec.h"
#include "tests/support/run_ranks.h"
#include "tests/support/test_sizes.h"
#include "tests/support/test_streams.h"
#include "tests/train/bf16_bound.h"
#include "tests/train/training_fixture.h"

namespace serrate {
namespace {

using reference::Matrix;

constexpr float kTableLearningRate = 0.5f;
constexpr std::int64_t kStep = 1;  // 2 to 7 events in each of its sequences

SmallTraining small_training(Activation activation, bool l2_normalize) {
  SmallTraining training;
  training.num_items = 15;  // some negatives are targets
  training.num_sequences = 3;
  training.options.sparse_optimizer = {.type = SparseOptimizer::kSgd,
                                       .learning_rate = kTableLearningRate};
  training.options.dense_optimizer = {.learning_rate = 0.01f, .eps = 1e-4f, .weight_decay = 0.1f};
  training.options.model.feed_forward_dim = 16;
  training.options.model.dropout = 0;
  training.options.model.activation = activation;
  training.options.model.l2_normalize = l2_normalize;
  return training;
}

Matrix matrix_of(const std::vector<float>& values, std::int64_t offset, std::int64_t rows,
                 std::int64_t cols) {
  Matrix result(rows, cols);
  std::copy_n(values.begin() + offset, rows * cols, result.values.begin());
  return result;
}

struct Step {
  std::vector<ParameterSlice> slices;
  Tensors before, after;
  TrainStepResult result;
};

Step run_step(const SmallTraining& training, int world_size, Device device) {
  Step step;
  run_ranks(world_size, [&](Communicator& communicator) {
    const Stream stream(device);
    const auto tables = training.tables();
    const ShardingPlan plan{
        .world_size = world_size,
        .tables = {shard_table(tables[0], ShardingType::kRowWise, world_size, 0, 1),
                   shard_table(tables[1], ShardingType::kTableWise, world_size, 0, 1)}};
    TrainState state(tables, plan, training.options, communicator, stream);
    collect(state, step.before);
    const NextItemBatch batch = training.batch(kStep, communicator.rank(), world_size, stream);
    const TrainStepResult result = train_step(state, batch, kStep);
    collect(state, step.after);
    if (communicator.rank() == 0) {
      step.result = result;
      step.slices = state.encoder.parameters().slices();
    }
  });
  return step;
}

reference::Sasrec reference_of(const SmallTraining& training, const Step& step) {
  const std::int64_t dim = training.options.model.dim;
  reference::Sasrec model;
  model.options = training.options.model;
  model.items = matrix_of(step.before.at("item.weights"), 0, training.num_items, dim);
  model.others = matrix_of(step.before.at("country.weights"), 0, training.num_countries, dim);
  model.negatives = training.negatives(kStep);
  for (const ParameterSlice& slice : step.slices) {
    model.parameters[slice.name] =
        matrix_of(step.before.at("dense"), slice.offset, slice.rows, slice.cols);
  }
  for (const auto& events : training.sequences(kStep)) {
    auto& tokens = model.sequences.emplace_back();
    for (std::size_t i = 0; i + 1 < events.size(); ++i) {
      tokens.push_back({events[i].item, events[i].countries, events[i + 1].item});
    }
  }
  return model;
}

/// Plain SGD: a table's change is its gradient.
std::vector<double> table_gradient(const Step& step, const std::string& table) {
  const auto& before = step.before.at(table + ".weights");
  const auto& after = step.after.at(table + ".weights");
  std::vector<double> gradient;
  for (std::size_t i = 0; i < before.size(); ++i) {
    gradient.push_back((double{before[i]} - after[i]) / kTableLearningRate);
  }
  return gradient;
}

/// AdamW's first moment after its first step is (1 - beta1) times the gradient.
std::vector<double> dense_gradient(const Step& step, const ParameterSlice& slice,
                                   const AdamWOptions& adamw) {
  const auto first = step.after.at("dense.first_moment").begin() + slice.offset;
  std::vector<double> gradient(first, first + slice.size());
  for (double& value : gradient) value /= 1 - double{adamw.beta1};
  return gradient;
}

/// Each within a few float32 roundings of the largest.
void expect_close(const std::vector<double>& expected, const std::vector<double>& actual,
                  const std::string& what) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  double largest = 1e-4;
  for (const double value : expected) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], 2e-5 * largest) << what << ", element " << i;
  }
}

struct Case {
  std::string name;
  Activation activation;
  bool l2_normalize;
  int world_size;
};

class SasrecReferenceTest : public testing::TestWithParam<std::tuple<Device, Case>> {};

TEST_P(SasrecReferenceTest, AStepIsItsDefinition) {
  const auto& [device, model_case] = GetParam();
  const auto& [name, activation, l2_normalize, world_size] = model_case;
  const SmallTraining training = small_training(activation, l2_normalize);
  const Step step = run_step(training, world_size, device);
  reference::Sasrec model = reference_of(training, step);
  const auto loss = [&] { return model.loss(); };
  EXPECT_EQ(step.result.tokens, model.num_tokens());
  EXPECT_NEAR(step.result.loss, model.loss(), 1e-6 * model.loss());

  for (const auto& [table, rows] : {std::pair{"item", &model.items}, {"country", &model.others}}) {
    expect_close(reference::numeric_gradient(*rows, loss).values, table_gradient(step, table),
                 table);
  }

  const AdamWOptions& adamw = training.options.dense_optimizer;
  for (const ParameterSlice& slice : step.slices) {
    const Matrix gradient = reference::numeric_gradient(model.parameters.at(slice.name), loss);
    const std::vector<double> actual = dense_gradient(step, slice, adamw);
    std::vector<double> expected_values, actual_values;
    for (std::int64_t i = 0; i < slice.size(); ++i) {
      const std::int64_t place = slice.offset + i;
      const double decay = slice.decays ? double{adamw.weight_decay} : 0;
      const double value = step.before.at("dense")[place], g = gradient.values[i];
      expected_values.push_back(value -
                                double{adamw.learning_rate} *
                                    (g / (std::abs(g) + double{adamw.eps}) + decay * value));
      actual_values.push_back(step.after.at("dense")[place]);
    }
    expect_close(gradient.values, actual, slice.name + " gradient");
    // g / (|g| + eps) has a slope of 1 / eps where g is nothing but rounding.
    for (std::int64_t i = 0; i < slice.size(); ++i) {
      const double g = gradient.values[i];
      const double slope = double{adamw.eps} / std::pow(std::abs(g) + double{adamw.eps}, 2);
      EXPECT_NEAR(actual_values[i], expected_values[i],
                  1e-6 + double{adamw.learning_rate} * slope * 2e-6)
          << slice.name << ", element " << i;
    }
  }
}

struct Products {
  Precision precision;
  std::int64_t num_heads;
};

class SasrecPrecisionTest : public testing::TestWithParam<std::tuple<Device, Products>> {};

TEST_P(SasrecPrecisionTest, AStepIsItsDefinitionToTheRoundingsOfItsProducts) {
  if (!tests_run_on_devices()) GTEST_SKIP() << "the CPU has fp32 alone";
  const auto& [device, products] = GetParam();
  const auto [precision, num_heads] = products;
  SmallTraining training = small_training(Activation::kGelu, false);
  SequenceModelOptions& options = training.options.model;
  options.dim = 32;
  options.num_heads = num_heads;
  options.feed_forward_dim = num_heads == 1 ? 16 : 13;  // slices of the weights that are padded
  options.precision = precision;
  const double bound = precision == Precision::kTf32 ? tf32_bound(options.num_blocks)
                                                     : bf16_bound(options.num_blocks);
  const Step step = run_step(training, 1, device);
  reference::Sasrec model = reference_of(training, step);
  const auto loss = [&] { return model.loss(); };
  EXPECT_NEAR(step.result.loss, model.loss(), bound * model.loss());
  const auto check_gradient = [&](Matrix& x, const std::vector<double>& gradient,
                                  const std::string& what) {
    const std::vector<double> expected = reference::numeric_gradient(x, loss).values;
    ASSERT_EQ(expected.size(), gradient.size()) << what;
    EXPECT_LE(distance(gradient, expected), bound * length(expected)) << what;
  };
  check_gradient(model.items, table_gradient(step, "item"), "item");
  check_gradient(model.others, table_gradient(step, "country"), "country");
  for (const ParameterSlice& slice : step.slices) {
    check_gradient(model.parameters.at(slice.name),
                   dense_gradient(step, slice, training.options.dense_optimizer), slice.name);
  }
}

// With 32 columns a head, which attention takes to tensor cores, and with 16.
INSTANTIATE_TEST_SUITE_P(Heads, SasrecPrecisionTest,
                         testing::Combine(testing::ValuesIn(test_devices()),
                                          testing::Values(Products{Precision::kBf16, 1},
                                                          Products{Precision::kBf16, 2},
                                                          Products{Precision::kTf32, 1})));

INSTANTIATE_TEST_SUITE_P(
    Models, SasrecReferenceTest,
    testing::Combine(testing::ValuesIn(test_devices()),
                     testing::Values(Case{"GeluOneRank", Activation::kGelu, false, 1},
                                     Case{"GeluTanhOneRank", Activation::kGeluTanh, false, 1},
                                     Case{"SiluCosineThreeRanks", Activation::kSilu, true, 3},
                                     Case{"ReluTwoRanks", Activation::kRelu, false, 2})),
    [](const auto& each) { return std::get<Case>(each.param).name; });

}  // namespace
}  // namespace serrate
