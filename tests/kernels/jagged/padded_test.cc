#include "serrate/kernels/jagged_padded.h"

#include "serrate/error.h"
#include "serrate/kernels/jagged_concat.h"
#include "serrate/kernels/jagged_pairs.h"
#include "tests/kernels/test_batch.h"
#include "tests/support/test_streams.h"

namespace serrate {
namespace {

using Lengths = TestBatch::Lengths;

struct Conversion {
  TestBatch jagged, padded;
};

std::vector<Conversion> conversions(const Lengths& lengths, std::int64_t n) {
  const auto batch_size = std::ssize(lengths);
  std::vector<Conversion> result;
  for (const std::int64_t cols : {1, 5, 8, 64}) {
    result.push_back({TestBatch::jagged(lengths, cols), TestBatch::dense(batch_size, n, cols)});
  }
  result.push_back({TestBatch::pairs(lengths, lengths), TestBatch::dense(batch_size, n, n)});
  return result;
}

const Lengths kPaddedLengths = {0, 1, 7, 63, 64, 65, 0, 127, 0};

class JaggedPaddedTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, JaggedPaddedTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(JaggedPaddedTest, EachWayAgreesWithTheReferenceCutOrFilled) {
  for (const std::int64_t n : {1, 64, 130}) {
    for (auto& [jagged, padded] : conversions(kPaddedLengths, n)) {
      jagged.randomise(1);
      reference::Samples expected = jagged.in_double();
      for (reference::Matrix& sample : expected) {
        const std::int64_t cols = padded.in_double()[0].cols;
        sample = reference::resized(sample, n, cols, -2);
      }
      jagged_to_padded(jagged.on(stream), -2, padded.fill(7).on(stream), threads(2));
      expect_close(padded, expected, 0);

      reference::Samples back = jagged.in_double();
      for (std::size_t b = 0; b < back.size(); ++b) {
        back[b] = reference::resized(expected[b], std::min(n, back[b].rows),
                                     std::min(expected[b].cols, back[b].cols), 0);
        back[b] =
            reference::resized(back[b], jagged.in_double()[b].rows, jagged.in_double()[b].cols, 0);
      }
      padded_to_jagged(padded.on(stream), jagged.fill(7).on(stream), threads(2));
      expect_close(jagged, back, 0);
    }
  }
}

// <d, to_padded(x)> = <to_jagged(d), x>: each is the other's backward.
TEST_P(JaggedPaddedTest, EachIsTheBackwardOfTheOther) {
  for (auto& [jagged, padded] : conversions({0, 3, 1, 6, 4}, 4)) {
    TestBatch d_jagged = jagged, d_padded = padded;
    jagged_to_padded(jagged.randomise(1).on(stream), 0, padded.on(stream), stream);
    padded_to_jagged(d_padded.randomise(2).on(stream), d_jagged.on(stream), stream);
    double forward = 0, backward = 0;
    for (std::size_t b = 0; b < 5; ++b) {
      forward += dot(d_padded.in_double()[b], padded.in_double()[b]);
      backward += dot(d_jagged.in_double()[b], jagged.in_double()[b]);
    }
    EXPECT_NE(forward, 0);
    EXPECT_NEAR(forward, backward, 1e-12);
  }
}

TEST_P(JaggedPaddedTest, EmptyBatchesAndErrors) {
  for (auto& [jagged, padded] : conversions({}, 4)) {
    jagged_to_padded(jagged.on(stream), 0, padded.on(stream), stream);
    padded_to_jagged(padded.on(stream), jagged.on(stream), stream);
    EXPECT_TRUE(jagged.nothing_else_written());
  }
  TestBatch jagged = TestBatch::jagged({2, 3}, 4), padded = TestBatch::dense(3, 3, 4);
  EXPECT_THROW(jagged_to_padded(jagged.on(stream), 0, padded.on(stream), stream), Error);
  TestBatch shared = TestBatch::shared(2, 3, 4);
  EXPECT_THROW(jagged_to_padded(jagged.on(stream), 0, shared.on(stream), stream), Error);
  const TestArray<float> values(7 * 4);
  const DeviceMatrix<float> seven_rows(values.on(stream), 7, 4);
  EXPECT_THROW(MatrixBatch<float>::dense(seven_rows, 2), Error);
  EXPECT_THROW(MatrixBatch<float>::dense(seven_rows, 0), Error);
  EXPECT_EQ(MatrixBatch<float>::dense(seven_rows, 7).rows, 1);
}

class JaggedConcatTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, JaggedConcatTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(JaggedConcatTest, JoinsRowsAndSplitsThemAgain) {
  const Lengths x_lengths = {0, 1, 0, 70, 3}, y_lengths = {2, 0, 0, 130, 64};
  for (const std::int64_t cols : {1, 5, 8, 64}) {
    TestBatch x = TestBatch::jagged(x_lengths, cols), y = TestBatch::jagged(y_lengths, cols);
    TestBatch z = TestBatch::jagged({2, 1, 0, 200, 67}, cols);
    jagged_concat(x.randomise(1).on(stream), y.randomise(2).on(stream), z.on(stream), threads(2));
    reference::Samples expected;
    for (std::size_t b = 0; b < x_lengths.size(); ++b) {
      expected.push_back(reference::concat(x.in_double()[b], y.in_double()[b]));
    }
    expect_close(z, expected, 0);
    TestBatch x_again = x, y_again = y;
    jagged_split(z.on(stream), x_again.fill(7).on(stream), y_again.fill(7).on(stream), threads(2));
    expect_same_bits(x, x_again);
    expect_same_bits(y, y_again);

    const TestArray<std::int64_t> offsets(6);
    jagged_concat_offsets(x.on(stream), y.on(stream), offsets.on(stream), stream);
    EXPECT_EQ(offsets.host(), (std::vector<std::int64_t>{0, 2, 3, 3, 203, 270}));
  }
}

TEST_P(JaggedConcatTest, PrependsADenseRow) {
  TestBatch row = TestBatch::dense(3, 1, 1), x = TestBatch::jagged({2, 0, 1}, 1);
  const TestArray<std::int64_t> offsets(4);
  jagged_concat_offsets(row.on(stream), x.on(stream), offsets.on(stream), stream);
  EXPECT_EQ(offsets.host(), (std::vector<std::int64_t>{0, 3, 4, 6}));
  float next = 1;
  row.for_each([&](float& value) { value = next++; });
  x.for_each([&](float& value) { value = next++; });
  const TestArray<float> z(6);
  jagged_concat(row.on(stream), x.on(stream),
                MatrixBatch<float>::jagged({z.on(stream), 6, 1}, offsets.on(stream)), stream);
  EXPECT_EQ(z.host(), (std::vector<float>{1, 4, 5, 2, 3, 6}));
}

// A device's offsets are not read on the host: there wrong ones are the caller's to see to.
TEST(JaggedConcatOnTheCpu, BadArgumentsAreErrors) {
  const Stream stream;
  TestBatch x = TestBatch::jagged({1, 2}, 4), y = TestBatch::jagged({2, 0}, 4);
  TestBatch narrow = TestBatch::jagged({3, 2}, 3), shorter = TestBatch::jagged({3, 1}, 4);
  for (TestBatch* bad : {&narrow, &shorter}) {
    EXPECT_THROW(jagged_concat(x.on(stream), y.on(stream), bad->on(stream), stream), Error);
    EXPECT_THROW(jagged_split(bad->on(stream), x.on(stream), y.on(stream), stream), Error);
  }
}

class JaggedPairsTest : public KernelTest {};
INSTANTIATE_TEST_SUITE_P(Device, JaggedPairsTest, testing::ValuesIn(test_devices()), device_name);

TEST_P(JaggedPairsTest, OffsetsAddUpProducts) {
  const TestArray<std::int64_t> rows = {5, 7, 7, 10}, cols = {0, 3, 9, 10}, offsets(4);
  pair_offsets(rows.on(stream), cols.on(stream), offsets.on(stream), stream);
  EXPECT_EQ(offsets.host(), (std::vector<std::int64_t>{0, 2 * 3, 6, 6 + 3 * 1}));
  EXPECT_THROW(pair_offsets(rows.on(stream), cols.on(stream).first(3), offsets.on(stream), stream),
               Error);
}

TEST_P(JaggedPairsTest, SelfSubtractionByHandKeepsAllDigits) {
  const std::int64_t late = 1'700'000'000'000'000;  // more than a double's digits with what follows
  const TestArray<std::int64_t> x = {99, late, late + 1, late + 4, 8, 99}, offsets = {1, 4, 4, 5};
  const TestArray<std::int64_t> z_offsets(4), z(6, 77);
  self_subtraction_offsets(offsets.on(stream), z_offsets.on(stream), stream);
  EXPECT_EQ(z_offsets.host(), (std::vector<std::int64_t>{0, 4, 4, 4}));
  jagged_self_subtraction({x.on(stream), offsets.on(stream), z.on(stream), z_offsets.on(stream)},
                          threads(2));
  EXPECT_EQ(z.host(), (std::vector<std::int64_t>{-1, -4, 0, -3, 77, 77}));
}

TEST(JaggedPairsOnTheCpu, OffsetsThatDoNotFitAreErrors) {
  const Stream stream;
  const TestArray<std::int64_t> x(6), offsets = {1, 4, 4, 5}, z_offsets = {0, 3, 4, 4}, z(6);
  EXPECT_THROW(jagged_self_subtraction(
                   {x.on(stream), offsets.on(stream), z.on(stream), z_offsets.on(stream)}, stream),
               Error);
}

TEST_P(JaggedPairsTest, SelfSubtractionOfManyLengths) {
  const Lengths lengths = {0, 1, 2, 65, 0, 200};
  std::vector<std::int64_t> x, offsets = {0}, expected;
  for (const std::int64_t length : lengths) {
    for (std::int64_t i = 0; i < length; ++i) x.push_back((i * i * 37 + length) % 1009);
    offsets.push_back(offsets.back() + length);
    const std::int64_t* times = x.data() + x.size() - length;
    for (std::int64_t i = 0; i + 1 < length; ++i) {
      for (std::int64_t j = 1; j < length; ++j) expected.push_back(times[i] - times[j]);
    }
  }
  const TestArray<std::int64_t> x_array(x), offsets_array(offsets), z_offsets(lengths.size() + 1);
  self_subtraction_offsets(offsets_array.on(stream), z_offsets.on(stream), stream);
  const TestArray<std::int64_t> z(z_offsets.host().back());
  jagged_self_subtraction(
      {x_array.on(stream), offsets_array.on(stream), z.on(stream), z_offsets.on(stream)},
      threads(2));
  EXPECT_EQ(z.host(), expected);
}

}  // namespace
}  // namespace serrate
