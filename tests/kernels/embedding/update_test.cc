#include "serrate/kernels/embedding_update.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "serrate/error.h"
#include "serrate/kernels/embedding_lookup.h"
#include "tests/kernels/embedding/update_fixture.h"
#include "tests/support/test_sizes.h"

namespace serrate {
namespace {

using reference::Bags;
using reference::Matrix;
using reference::Parameters;

constexpr SparseOptimizer kOptimizers[] = {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                           SparseOptimizer::kRowWiseAdagrad,
                                           SparseOptimizer::kAdam};

TEST_P(EmbeddingUpdateTest, GroupsOccurrencesByRow) {
  DeviceGradient first({{{7, 2, 7}, {0, 1, 3}, {}}, Matrix(2, 1)}, stream);
  DeviceGradient second({{{2, 0}, {5, 5, 7}, {}}, Matrix(2, 1)}, stream);
  const std::vector segments{first.segment(), second.segment()};
  group_gradients(segments, 9, groups, stream);
  EXPECT_EQ(groups.num_occurrences, 5);
  EXPECT_EQ(grouped(groups, segments, stream),
            (std::vector<Grouped>{{0, 1, 1}, {2, 0, 1}, {2, 1, 1}, {7, 0, 0}, {7, 0, 1}}));
}

TEST_P(EmbeddingUpdateTest, GroupsRowsOfHugeTables) {
  constexpr std::int64_t kRows = std::int64_t{1} << 41;
  DeviceGradient gradient({{{kRows - 1, 5, std::int64_t{1} << 33, 5}, {0, 4}, {}}, Matrix(1, 1)},
                          stream);
  const GradientSegment segment = gradient.segment();
  group_gradients({&segment, 1}, kRows, groups, stream);
  EXPECT_EQ(grouped(groups, {&segment, 1}, stream),
            (std::vector<Grouped>{
                {5, 0, 0}, {5, 0, 0}, {std::int64_t{1} << 33, 0, 0}, {kRows - 1, 0, 0}}));
  DeviceGradient bags({{{1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {}}, Matrix(5, 1)}, stream);
  const GradientSegment of_five = bags.segment();
  EXPECT_THROW(group_gradients({&of_five, 1}, std::int64_t{1} << 62, groups, stream), Error);
}

TEST_P(EmbeddingUpdateTest, AddsUpGradientsOfARow) {
  const SparseOptimizerOptions sgd{.type = SparseOptimizer::kSgd, .learning_rate = 1};
  DeviceParameters parameters(start(sgd.type, matrix(3, 2, {0, 0, 10, 20, 1, 1})), stream);
  update({{{{1, 1, 2}, {0, 2, 3}, {}}, matrix(2, 2, {1, 2, 4, 8})},
          {{{1}, {0, 1}, {0.5}}, matrix(1, 2, {16, 32})}},
         sgd, 1, parameters);
  EXPECT_EQ(parameters.to_host(stream).table.values,
            (std::vector<double>{0, 0, 10 - 2 - 8, 20 - 4 - 16, -3, -7}));
}

TEST_P(EmbeddingUpdateTest, StepsByHand) {
  using Values = std::vector<double>;
  const Parameters adagrad = step_one_row({.type = SparseOptimizer::kAdagrad}, {2, -4});
  EXPECT_EQ(adagrad.state.values, (Values{4, 16}));
  EXPECT_EQ(adagrad.table.values, (Values{0.5, 2.5}));
  // The mean of 1 and 49 is 25.
  const Parameters row_wise = step_one_row({.type = SparseOptimizer::kRowWiseAdagrad}, {1, 7});
  EXPECT_EQ(row_wise.state.values, (Values{25}));
  expect_near(row_wise.table, matrix(1, 2, {1 - 0.1, 2 - 0.7}), 1e-7);
  // The first step of adam is the learning rate against the sign of the gradient.
  const Parameters adam = step_one_row({.type = SparseOptimizer::kAdam}, {3, -5});
  expect_near(adam.table, matrix(1, 2, {0.5, 2.5}), 1e-6);
  expect_near(adam.state, matrix(1, 2, {0.3, -0.5}), 1e-6);
  expect_near(adam.second_moment, matrix(1, 2, {0.009, 0.025}), 1e-6);
}

TEST_P(EmbeddingUpdateTest, MatchesReferenceForEveryOptimizerAndWidth) {
  constexpr std::int64_t kRows = 60;
  for (const SparseOptimizer type : kOptimizers) {
    const SparseOptimizerOptions optimizer{.type = type, .learning_rate = 0.1f};
    for (const std::int64_t dim : kDims) {
      SCOPED_TRACE(to_string(type) + ", dim " + std::to_string(dim));
      Parameters expected = start(type, random_matrix(kRows, dim, 1));
      DeviceParameters actual(expected, stream);
      for (std::uint32_t step = 1; step <= 3; ++step) {
        std::vector<Gradient> gradients;
        Matrix d_table(kRows, dim);
        std::vector<std::int64_t> touched;
        for (std::uint32_t s = 0; s < 3; ++s) {
          const Bags bags = random_bags(20, kRows, 4, s == 1, 10 * step + s);
          gradients.push_back({bags, random_matrix(bags.num_bags(), dim, 100 * step + s)});
          reference::add_embedding_gradient(bags, gradients.back().d_output, d_table);
          touched.insert(touched.end(), bags.indices.begin(), bags.indices.end());
        }
        reference::embedding_update(optimizer, step, d_table, touched, expected);
        update(gradients, optimizer, step, actual);
      }
      const Parameters result = actual.to_host(stream);
      expect_near(result.table, expected.table, 2e-5);
      expect_near(result.state, expected.state, 2e-5);
      expect_near(result.second_moment, expected.second_moment, 2e-5);
    }
  }
}

// Rows of fours of columns, of which each matrix in turn has rows that are not aligned.
TEST_P(EmbeddingUpdateTest, AlignmentChangesNoBits) {
  constexpr std::int64_t kRows = 20, kDim = 8;
  const Bags bags = random_bags(30, kRows, 5, true, 41);
  const DeviceBags on_device(bags, stream);
  const Matrix zeros(kRows, kDim);
  const auto update = [&](int unaligned) {
    const auto gap = [&](int i) { return i == unaligned ? 3 : 4; };
    TestMatrix d_output(random_matrix(30, kDim, 42), stream, gap(0));
    TestMatrix table(random_matrix(kRows, kDim, 43), stream, gap(1));
    TestMatrix first(zeros, stream, gap(2)), second(zeros, stream, gap(3));
    const GradientSegment segment{on_device.indices.span(), on_device.offsets.span(),
                                  on_device.weights.span(), d_output.view()};
    group_gradients({&segment, 1}, kRows, groups, stream);
    embedding_update({.table = table.view(),
                      .state = first.view(),
                      .second_moment = second.view(),
                      .segments = {&segment, 1},
                      .optimizer = {.type = SparseOptimizer::kAdam},
                      .step = 1},
                     groups, {}, 0, stream);
    return Parameters{table.to_host(stream), first.to_host(stream), second.to_host(stream)};
  };
  const Parameters aligned = update(-1);
  for (int i = 0; i < 4; ++i) {
    const Parameters actual = update(i);
    EXPECT_EQ(actual.table.values, aligned.table.values);
    EXPECT_EQ(actual.state.values, aligned.state.values);
    EXPECT_EQ(actual.second_moment.values, aligned.second_moment.values);
  }
}

// Rows 0 to 4 have 1, 511, 512, 513 and 5,000 occurrences, one in each bag, and gradients of small
// integers, whose sums are exact in any order; means of their squares and the step that follows
// from them are rounded.
TEST_P(EmbeddingUpdateTest, AddsUpRowsWithVeryManyOccurrences) {
  std::vector<std::int64_t> left = {1, 511, 512, 513, 5000};
  Bags bags{{}, {0}, {}};
  for (std::int64_t row = 0; std::ranges::any_of(left, std::identity()); row = (row + 1) % 5) {
    if (left[row] == 0) continue;
    --left[row];
    bags.indices.push_back(row);
    bags.offsets.push_back(std::ssize(bags.indices));
  }
  using enum SparseOptimizer;
  for (const auto& [type, dim] : {std::pair{kSgd, 1},
                                  {kSgd, 4},
                                  {kSgd, 16},
                                  {kSgd, 64},
                                  {kSgd, 200},
                                  {kRowWiseAdagrad, 16}}) {
    SCOPED_TRACE(to_string(type) + ", dim " + std::to_string(dim));
    Matrix d_output(bags.num_bags(), dim), d_table(5, dim);
    for (std::int64_t b = 0; b < d_output.rows; ++b) {
      for (std::int64_t c = 0; c < dim; ++c) {
        d_output(b, c) = c == 0 ? 1 : static_cast<double>((b + c) % 7 - 2);
      }
    }
    reference::add_embedding_gradient(bags, d_output, d_table);
    const SparseOptimizerOptions optimizer{.type = type, .learning_rate = 1};
    Parameters expected = start(type, Matrix(5, dim));
    DeviceParameters parameters(expected, stream);
    reference::embedding_update(optimizer, 1, d_table, bags.indices, expected);
    update({{bags, d_output}}, optimizer, 1, parameters);
    const Parameters actual = parameters.to_host(stream);
    const double tolerance = type == kSgd ? 0 : static_cast<double>(dim) * 0x1p-23;
    const auto check = [&](const Matrix& x, const Matrix& y) {
      for (std::size_t i = 0; i < y.values.size(); ++i) {
        EXPECT_NEAR(x.values[i], y.values[i], tolerance * std::abs(y.values[i])) << i;
      }
    };
    if (type == kSgd) {
      EXPECT_EQ(actual.table(4, 0), -5000);
    }
    check(actual.table, expected.table);
    check(actual.state, expected.state);
  }
}

// With rate 1, sgd leaves minus the gradient; the loss is sum(scale * sin(lookup)).
TEST_P(EmbeddingUpdateTest, GradientMatchesCentralDifferences) {
  const Bags bags = random_bags(6, 5, 4, true, 21);
  Matrix table = random_matrix(5, 3, 22);
  const Matrix scale = random_matrix(6, 3, 23);
  const auto loss = [&] {
    const Matrix pooled = reference::embedding_lookup(table, bags);
    double sum = 0;
    for (std::size_t i = 0; i < pooled.values.size(); ++i) {
      sum += scale.values[i] * std::sin(pooled.values[i]);
    }
    return sum;
  };
  Matrix d_pooled = reference::embedding_lookup(table, bags);
  for (std::size_t i = 0; i < d_pooled.values.size(); ++i) {
    d_pooled.values[i] = scale.values[i] * std::cos(d_pooled.values[i]);
  }
  const SparseOptimizerOptions sgd{.type = SparseOptimizer::kSgd, .learning_rate = 1};
  DeviceParameters parameters(start(sgd.type, Matrix(5, 3)), stream);
  update({{bags, d_pooled}}, sgd, 1, parameters);
  const Matrix minus_gradient = parameters.to_host(stream).table;
  for (std::size_t i = 0; i < table.values.size(); ++i) {
    constexpr double kStep = 1e-5;
    const double value = table.values[i];
    table.values[i] = value + kStep;
    const double above = loss();
    table.values[i] = value - kStep;
    const double below = loss();
    table.values[i] = value;
    EXPECT_NEAR(-minus_gradient.values[i], (above - below) / (2 * kStep), 1e-6);
  }
}

// What a block of a GPU keeps in shared memory of one row and its occurrence is 48 KiB.
TEST_P(EmbeddingUpdateTest, TakesRowsAsWideAsThereIsRoom) {
  const auto step = [&](std::int64_t dim) {
    DeviceParameters parameters(start(SparseOptimizer::kSgd, Matrix(2, dim)), stream);
    Matrix d_output(1, dim);
    for (std::int64_t c = 0; c < dim; ++c) d_output(0, c) = static_cast<double>(c % 7 - 2);
    update({{{{1}, {0, 1}, {}}, d_output}}, {.type = SparseOptimizer::kSgd, .learning_rate = 1}, 1,
           parameters);
    const Matrix table = parameters.to_host(stream).table;
    for (std::int64_t c = 0; c < dim; ++c) ASSERT_EQ(table(1, c), -d_output(0, c)) << c;
  };
  step(12276);
  if (stream.device().type == DeviceType::kCpu) return;
  EXPECT_THROW(step(12277), Error);
}

TEST_P(EmbeddingUpdateTest, LeavesOtherRowsAlone) {
  for (const SparseOptimizer type : kOptimizers) {
    const Parameters begin = start(type, random_matrix(10, 6, 41));
    DeviceParameters parameters(begin, stream);
    update({{{{4, 4}, {0, 2}, {}}, random_matrix(1, 6, 42)}}, {.type = type}, 1, parameters);
    const Parameters end = parameters.to_host(stream);
    for (std::int64_t r = 0; r < 10; ++r) {
      for (std::int64_t c = 0; c < 6; ++c) {
        EXPECT_EQ(end.table(r, c) == begin.table(r, c), r != 4) << to_string(type) << " row " << r;
      }
    }
  }
}

TEST_P(EmbeddingUpdateTest, TakesNoIds) {
  const Parameters begin = start(SparseOptimizer::kAdam, random_matrix(4, 4, 51));
  DeviceParameters parameters(begin, stream);
  const SparseOptimizerOptions adam{.type = SparseOptimizer::kAdam};
  update({}, adam, 1, parameters);
  update({{{{}, {0}, {}}, Matrix(0, 4)}, {{{}, {3, 3, 3}, {}}, Matrix(2, 4)}}, adam, 2, parameters);
  EXPECT_EQ(groups.num_occurrences, 0);
  EXPECT_EQ(parameters.to_host(stream).table.values, begin.table.values);
}

TEST_P(EmbeddingUpdateTest, BitsDoNotDependOnThreads) {
  const std::vector<Gradient> gradients{
      {random_bags(300, 40, 20, true, 61), random_matrix(300, 24, 62)},
      {random_bags(50, 3000, 20, false, 63), random_matrix(50, 24, 64)}};
  for (const SparseOptimizer type : kOptimizers) {
    std::vector<float> of_one_thread;
    for (int num_threads = 1; num_threads <= most_threads(); ++num_threads) {
      stream = Stream(GetParam(), num_threads);
      DeviceParameters parameters(start(type, random_matrix(3000, 24, 65)), stream);
      update(gradients, {.type = type}, 1, parameters);
      const std::vector<float> table = parameters.table.raw(stream);
      if (num_threads == 1) of_one_thread = table;
      EXPECT_EQ(table, of_one_thread) << to_string(type) << ", " << num_threads << " threads";
      groups = {};  // before its stream goes
    }
  }
}

TEST_P(EmbeddingUpdateTest, RejectsStateOfAnotherShape) {
  const std::vector<Gradient> gradients{{{{0}, {0, 1}, {}}, Matrix(1, 4)}};
  for (const SparseOptimizer type :
       {SparseOptimizer::kAdagrad, SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
    DeviceParameters parameters(start(SparseOptimizer::kSgd, Matrix(2, 4)), stream);
    EXPECT_THROW(update(gradients, {.type = type}, 1, parameters), Error) << to_string(type);
  }
  DeviceParameters narrow(start(SparseOptimizer::kSgd, Matrix(2, 3)), stream);
  EXPECT_THROW(update(gradients, {.type = SparseOptimizer::kSgd}, 1, narrow), Error);
}

INSTANTIATE_TEST_SUITE_P(Device, EmbeddingUpdateTest, testing::ValuesIn(test_devices()),
                         device_name);

}  // namespace
}  // namespace serrate
