// Tables of fp16 and bf16: how numbers are stored, looked up and rounded after an update.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "serrate/error.h"
#include "serrate/kernels/embedding_lookup.h"
#include "serrate/kernels/embedding_update.h"
#include "tests/kernels/embedding/typed_table.h"

namespace serrate {
namespace {

using reference::Bags;
using reference::Matrix;

TEST(Float16Test, EveryNumberIsItself) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const auto half = of_bits<Float16>(bits);
    if (is_nan(half)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(half)));
      EXPECT_TRUE(std::isnan(static_cast<float>(Float16(static_cast<float>(half)))));
    } else {
      ASSERT_EQ(static_cast<float>(half), number(half)) << bits;
      ASSERT_EQ(Float16(static_cast<float>(half)).bits, bits);
    }
  }
}

TEST(Float16Test, RoundsToTheNearestAndHalvesToEven) {
  for (int bits = 0; bits < 0x7BFF; ++bits) {
    const double below = number(of_bits<Float16>(bits)), above = number(of_bits<Float16>(bits + 1));
    const auto half = static_cast<float>((below + above) / 2);
    ASSERT_EQ(Float16(half).bits, bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(Float16(std::nextafter(half, 0.0f)).bits, bits);
    ASSERT_EQ(Float16(std::nextafter(-half, -kInfinite)).bits, 0x8000 + bits + 1);
  }
  EXPECT_EQ(Float16(std::nextafter(65520.0f, 0.0f)).bits, 0x7BFF);
  EXPECT_EQ(Float16(65520.0f).bits, 0x7C00);
}

// How many of 2^kBits draws, evenly spread, round x away from 0.
template <typename Value, int kBits = 13>
int count_away_from_zero(float x) {
  int count = 0;
  for (std::uint32_t draw = 0; draw < 1u << kBits; ++draw) {
    const double rounded =
        number(of_bits<Value>(round_at_random(x, draw << (32 - kBits), Value())));
    EXPECT_EQ(std::signbit(rounded), std::signbit(x));
    count += std::abs(rounded) > std::abs(double{x});
  }
  return count;
}

template <typename Value>
class StochasticRoundingTypes : public testing::Test {};
using HalfTypes = testing::Types<Float16, BFloat16>;
TYPED_TEST_SUITE(StochasticRoundingTypes, HalfTypes);

// Between all kinds of neighbours: 0, subnormal, around the first normal number, normal, largest.
TYPED_TEST(StochasticRoundingTypes, RoundsUpAsOftenAsTheValueIsFarFromTheOneBelow) {
  const int largest = std::is_same_v<TypeParam, Float16> ? 0x7BFF : 0x7F7F;
  for (const int bits : {0, 1, 2, 77, 0x7F, 0x3FF, 0x400, 0x3C00, 0x3F80, 0x4321, largest - 1}) {
    const double below = number(of_bits<TypeParam>(bits));
    const double above = number(of_bits<TypeParam>(bits + 1));
    for (const double part : {0.0, 1.0 / 8192, 0.25, 0.5, 0.75, 8191.0 / 8192}) {
      const auto x = static_cast<float>(below + part * (above - below));
      EXPECT_EQ(count_away_from_zero<TypeParam>(x), part * 8192) << bits << " + " << part;
      EXPECT_EQ(count_away_from_zero<TypeParam>(-x), part * 8192) << bits << " + " << part;
    }
  }
}

// Subnormal numbers of Float16 have fewer bits than 11, so that a float has more than 13 behind
// them: down to 2^-45 all count.
TEST(StochasticRoundingTest, SubnormalNumbersOfFloat16RoundByAllBitsOfAFloat) {
  for (const float x : {0x1p-45f, 0x3p-42f, 0x1p-38f, 0x1.23456p-25f, 0x1.000002p-22f,
                        0x1.fffffep-22f, 0x1.fffffep-20f, 0x1.fffffep-15f}) {
    const double places = std::ldexp(double{x}, 24), part = places - std::floor(places);
    EXPECT_EQ((count_away_from_zero<Float16, 21>(x)), part * (1 << 21)) << x;
  }
  EXPECT_EQ((count_away_from_zero<Float16, 21>(0x1.fffffep-46f)), 0);
}

TYPED_TEST(StochasticRoundingTypes, LargestStayFiniteAndOthersStayWhatTheyAre) {
  const auto rounded = [](float x) {
    return static_cast<float>(of_bits<TypeParam>(round_at_random(x, ~0u, TypeParam())));
  };
  const float largest = std::is_same_v<TypeParam, Float16> ? 65504.0f : 0x1.FEp127f;
  for (const float x :
       {largest, std::nextafter(largest, kInfinite), std::numeric_limits<float>::max()}) {
    EXPECT_EQ(rounded(x), largest);
    EXPECT_EQ(rounded(-x), -largest);
  }
  EXPECT_EQ(rounded(kInfinite), kInfinite);
  EXPECT_EQ(rounded(-kInfinite), -kInfinite);
  EXPECT_TRUE(std::isnan(rounded(std::bit_cast<float>(0x7F800001))));
  EXPECT_EQ(rounded(0), 0);
}

// To 1e-6 of the sum of the terms' magnitudes.
void expect_pooled(const Matrix& actual, Matrix table, Bags bags) {
  const Matrix expected = reference::embedding_lookup(table, bags);
  for (double& x : table.values) x = std::abs(x);
  for (float& w : bags.weights) w = std::abs(w);
  const Matrix magnitudes = reference::embedding_lookup(table, bags);
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    ASSERT_NEAR(actual.values[i], expected.values[i], 1e-6 * magnitudes.values[i]) << i;
  }
}

class TableTypesTest : public EmbeddingTest {};
INSTANTIATE_TEST_SUITE_P(Device, TableTypesTest, testing::ValuesIn(test_devices()), device_name);

// One call for tables of all three types, with values of every size down to the smallest.
TEST_P(TableTypesTest, LookupsPoolNumbersOfAnyType) {
  for (const std::int64_t dim : kDims) {
    SCOPED_TRACE(dim);
    Matrix values = random_matrix(50, dim, 1);
    for (std::size_t i = 0; i < values.values.size(); ++i) {
      values.values[i] = std::ldexp(values.values[i], -static_cast<int>(i % 26));
    }
    const Bags bags = random_bags(40, 50, 9, true, 2);
    const DeviceBags on_device(bags, stream);
    TypedTable<float> fp32(values, stream);
    TypedTable<Float16> fp16(values, stream);
    TypedTable<BFloat16> bf16(values, stream);
    std::vector<TestMatrix> outputs;
    for (int i = 0; i < 3; ++i) outputs.emplace_back(Matrix(bags.num_bags(), dim), stream);
    const auto segment = [&](const InputMatrix& table, TestMatrix& output) {
      return LookupSegment{table, on_device.indices.span(), on_device.offsets.span(),
                           on_device.weights.span(), output.view()};
    };
    const std::vector segments{segment(fp32.view(), outputs[0]), segment(fp16.view(), outputs[1]),
                               segment(bf16.view(), outputs[2])};
    embedding_lookup(segments, stream);
    expect_pooled(outputs[0].to_host(stream), fp32.start(), bags);
    expect_pooled(outputs[1].to_host(stream), fp16.start(), bags);
    expect_pooled(outputs[2].to_host(stream), bf16.start(), bags);
  }
}

// Every number of a type: subnormal ones, infinities and NaN, too.
template <typename Value>
void expect_every_number_is_looked_up(const Stream& stream) {
  constexpr std::int64_t kSide = 256;
  std::vector<Value> values(kSide * kSide);
  Bags bags{{}, {0}, {}};
  for (int bits = 0; bits < kSide * kSide; ++bits) values[bits] = of_bits<Value>(bits);
  for (std::int64_t r = 0; r < kSide; ++r) {
    bags.indices.push_back(r);
    bags.offsets.push_back(r + 1);
  }
  const Buffer<Value> table(values, stream);
  const DeviceBags on_device(bags, stream);
  TestMatrix output(Matrix(kSide, kSide), stream);
  const LookupSegment segment{DeviceMatrix<const Value>{table.device_data(), kSide, kSide, kSide},
                              on_device.indices.span(),
                              on_device.offsets.span(),
                              {},
                              output.view()};
  embedding_lookup({&segment, 1}, stream);
  const Matrix result = output.to_host(stream);
  for (int bits = 0; bits < kSide * kSide; ++bits) {
    const double x = result.values[bits];
    if (is_nan(values[bits])) {
      ASSERT_TRUE(std::isnan(x)) << bits;
    } else {
      ASSERT_EQ(x, number(values[bits])) << bits;
    }
  }
}

TEST_P(TableTypesTest, LookupsKnowEveryNumber) {
  expect_every_number_is_looked_up<Float16>(stream);
  expect_every_number_is_looked_up<BFloat16>(stream);
}

struct Updated {
  Matrix table, state, second_moment;
};

// What an update makes of a table of 30 rows; the state is never 0.
template <typename Value>
Updated update(TypedTable<Value>& table, std::int64_t dim, SparseOptimizer type, std::int64_t step,
               const TableRounding& rounding, const Stream& stream) {
  const Bags bags = random_bags(60, 30, 3, true, 5);
  const DeviceBags on_device(bags, stream);
  TestMatrix d_output(random_matrix(bags.num_bags(), dim, 6), stream);
  const auto positive = [&](std::int64_t cols) {
    Matrix values = random_matrix(30, cols, 7);
    for (double& x : values.values) x = std::abs(x) + 0.25;
    return values;
  };
  const bool adam = type == SparseOptimizer::kAdam;
  TestMatrix state(positive(type == SparseOptimizer::kSgd              ? 0
                            : type == SparseOptimizer::kRowWiseAdagrad ? 1
                                                                       : dim),
                   stream),
      second(positive(adam ? dim : 0), stream);
  const GradientSegment segment{on_device.indices.span(), on_device.offsets.span(),
                                on_device.weights.span(), d_output.view()};
  RowGroups groups;
  group_gradients({&segment, 1}, 30, groups, stream);
  embedding_update({.table = table.view(),
                    .state = state.view(),
                    .second_moment = second.view(),
                    .segments = {&segment, 1},
                    .optimizer = {.type = type, .learning_rate = 0.01f},
                    .step = step,
                    .rounding = rounding},
                   groups, {}, 0, stream);
  return {table.to_host(stream), state.to_host(stream), second.to_host(stream)};
}

// The word of a weight by its definition: word column % 4 of Philox of row, column / 4 and use,
// with a key that is made of seed, table and step.
std::uint32_t word_of(const TableRounding& at, std::int64_t step, std::int64_t r, std::int64_t c) {
  const std::uint64_t key = random_bits(at.seed, RandomUse::kRounding, at.table, step);
  const auto row = static_cast<std::uint64_t>(at.row_begin + r);
  const std::int64_t column = at.column_begin + c;
  return philox4x32(
      {static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
       static_cast<std::uint32_t>(column / 4), 6},
      {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)})[column % 4];
}

// A float table that starts with the same numbers has what the other one's are rounded from, and
// the same state. Rows without a gradient keep their bits.
template <typename Value>
void expect_rounded_update(std::int64_t dim, SparseOptimizer type, const Stream& stream) {
  SCOPED_TRACE(testing::Message() << to_string(type) << ", dim " << dim);
  constexpr std::int64_t kStep = 3;
  for (const TableRounding at :
       {TableRounding{9, 2, 0, 0}, {9, 2, std::int64_t{5} << 32, 8}, {8, 1, 7, 5}}) {
    // On a GPU columns that are rounded one by one have their squares summed in another order.
    if (type == SparseOptimizer::kRowWiseAdagrad && at.column_begin % 4 != 0) continue;
    TypedTable<Value> table(random_matrix(30, dim, 4), stream);
    TypedTable<float> exact(table.start(), stream);
    const Updated rounded = update(table, dim, type, kStep, at, stream);
    const Updated expected = update(exact, dim, type, kStep, at, stream);
    EXPECT_EQ(rounded.state.values, expected.state.values);
    EXPECT_EQ(rounded.second_moment.values, expected.second_moment.values);
    for (std::int64_t r = 0; r < 30; ++r) {
      for (std::int64_t c = 0; c < dim; ++c) {
        const auto bits = round_at_random(static_cast<float>(expected.table(r, c)),
                                          word_of(at, kStep, r, c), Value());
        ASSERT_EQ(rounded.table(r, c), number(of_bits<Value>(bits))) << r << ", " << c;
      }
    }
  }
}

TEST_P(TableTypesTest, UpdatesRoundByTheDrawsOfTheirRowsAndColumns) {
  for (const SparseOptimizer type : {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                     SparseOptimizer::kRowWiseAdagrad, SparseOptimizer::kAdam}) {
    for (const std::int64_t dim : {3, 8, 50, 64}) {
      expect_rounded_update<Float16>(dim, type, stream);
      expect_rounded_update<BFloat16>(dim, type, stream);
    }
  }
}

// One step of SGD at rate 1.
template <typename Value>
void update_all_rows(TypedTable<Value>& table, const Matrix& gradient,
                     const TableRounding& rounding, const Stream& stream) {
  Bags bags{{}, {0}, {}};
  for (std::int64_t r = 0; r < gradient.rows; ++r) {
    bags.indices.push_back(r);
    bags.offsets.push_back(r + 1);
  }
  const DeviceBags on_device(bags, stream);
  TestMatrix d_output(gradient, stream);
  const GradientSegment segment{
      on_device.indices.span(), on_device.offsets.span(), {}, d_output.view()};
  RowGroups groups;
  group_gradients({&segment, 1}, gradient.rows, groups, stream);
  embedding_update({.table = table.view(),
                    .state = {},
                    .second_moment = {},
                    .segments = {&segment, 1},
                    .optimizer = {.type = SparseOptimizer::kSgd, .learning_rate = 1},
                    .step = 1,
                    .rounding = rounding},
                   groups, {}, 0, stream);
}

// A step of SGD that makes weights x of weights -0.
template <typename Value>
Matrix set_weights(const Matrix& x, const TableRounding& rounding, const Stream& stream) {
  Matrix zeros(x.rows, x.cols), gradient = x;
  std::ranges::fill(zeros.values, -0.0);
  for (double& g : gradient.values) g = -g;
  TypedTable<Value> table(zeros, stream);
  update_all_rows(table, gradient, rounding, stream);
  return table.to_host(stream);
}

// Weights of all kinds, each in every column and with several draws there. On the CPU some columns
// are rounded in wide vectors, some in narrow ones and three alone; on a GPU four or one at a time.
template <typename Value>
void expect_weights_round_as_numbers_do(const Stream& stream) {
  std::vector<float> sizes{0x1p-149f,    0x1.23p-140f,
                           0x1p-126f,    0x1p-46f,
                           0x1.8p-45f,   0x1p-38f,
                           0x1.5p-30f,   0x1.8p-25f,
                           0x1p-24f,     0x1.765432p-20f,
                           0x1p-15f,     0x1.ffcp-15f,
                           0x1.ffep-15f, 0x1.fffffep-15f,
                           0x1p-14f,     0x1.002p-14f,
                           1.2345678f,   65503,
                           65504,        65519,
                           65520,        65535,
                           65536,        3e38f,
                           0x1.fep127f,  std::numeric_limits<float>::max(),
                           kInfinite,    std::numeric_limits<float>::quiet_NaN()};
  constexpr std::int64_t kRows = 64;
  for (const auto& [cols, at] :
       {std::pair{std::int64_t{56}, TableRounding{4, 1, 0, 0}}, {std::int64_t{59}, {4, 1, 3, 2}}}) {
    Matrix x(kRows, cols);
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const float size = sizes[(r + c / 2) % std::ssize(sizes)];
        x(r, c) = c % 2 == 0 ? size : -size;
      }
    }
    const Matrix rounded = set_weights<Value>(x, at, stream);
    for (std::int64_t r = 0; r < kRows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        const auto weight = static_cast<float>(x(r, c));
        const auto expected =
            of_bits<Value>(round_at_random(weight, word_of(at, 1, r, c), Value()));
        const Value actual(static_cast<float>(rounded(r, c)));
        if (std::isnan(weight)) {
          ASSERT_TRUE(is_nan(actual)) << r << ", " << c;
        } else {
          ASSERT_EQ(actual.bits, expected.bits) << r << ", " << weight;
        }
      }
    }
  }
  Matrix zero(1, 5);
  std::ranges::fill(zero.values, -0.0);
  for (const double w : set_weights<Value>(zero, {}, stream).values) {
    EXPECT_TRUE(w == 0 && std::signbit(w));
  }
}

TEST_P(TableTypesTest, UpdatesRoundNumbersOfEveryKind) {
  expect_weights_round_as_numbers_do<Float16>(stream);
  expect_weights_round_as_numbers_do<BFloat16>(stream);
}

TEST_P(TableTypesTest, UpdatesThatRoundNeedAStepAndAPlace) {
  TypedTable<Float16> fp16(Matrix(2, 3), stream);
  TypedTable<float> fp32(Matrix(2, 3), stream);
  const auto update = [&](const OutputMatrix& table, std::int64_t step, std::int64_t row_begin,
                          std::int64_t column_begin) {
    RowGroups groups;
    group_gradients({}, 2, groups, stream);
    embedding_update({.table = table,
                      .state = {},
                      .second_moment = {},
                      .segments = {},
                      .optimizer = {.type = SparseOptimizer::kSgd},
                      .step = step,
                      .rounding = {1, 0, row_begin, column_begin}},
                     groups, {}, 0, stream);
  };
  EXPECT_NO_THROW(update(fp16.view(), 1, 0, 0));
  EXPECT_NO_THROW(update(fp32.view(), 0, -1, -1));
  EXPECT_THROW(update(fp16.view(), 0, 0, 0), Error);
  EXPECT_THROW(update(fp16.view(), 1, -1, 0), Error);
  EXPECT_THROW(update(fp16.view(), 1, 0, -1), Error);
}

// A change of 1/16 of the spacing of bf16 below 1: to nearest it would be lost 4,096 times, at
// random it is made in a sixteenth of the weights, 256 of which 16 are a standard deviation.
TEST_P(TableTypesTest, SmallChangesAreMadeInTheMean) {
  constexpr std::int64_t kRows = 16, kCols = 256;
  Matrix ones(kRows, kCols), gradient(kRows, kCols);
  std::ranges::fill(ones.values, 1.0);
  std::ranges::fill(gradient.values, 0x1p-12);
  TypedTable<BFloat16> table(ones, stream);
  update_all_rows(table, gradient, {}, stream);
  const Matrix after = table.to_host(stream);
  EXPECT_NEAR(std::ranges::count(after.values, 1 - 0x1p-8), 256, 5 * 16);
  EXPECT_EQ(std::ranges::count(after.values, 1.0) + std::ranges::count(after.values, 1 - 0x1p-8),
            kRows * kCols);
}

}  // namespace
}  // namespace serrate
