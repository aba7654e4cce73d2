#include "serrate/kernels/jagged_padded.h"

#include "serrate/error.h"
#include "serrate/kernels/jagged_concat.h"
#include "serrate/kernels/jagged_pairs.h"
#include "tests/kernels/host_batch.h"

namespace serrate {
namespace {

using Lengths = HostBatch::Lengths;

struct Conversion {
  HostBatch jagged, padded;
};

std::vector<Conversion> conversions(const Lengths& lengths, std::int64_t n) {
  const auto batch_size = std::ssize(lengths);
  std::vector<Conversion> result;
  for (const std::int64_t cols : {1, 5, 64}) {
    result.push_back({HostBatch::jagged(lengths, cols), HostBatch::dense(batch_size, n, cols)});
  }
  result.push_back({HostBatch::pairs(lengths, lengths), HostBatch::dense(batch_size, n, n)});
  return result;
}

const Lengths kLengths = {0, 1, 7, 63, 64, 65, 0, 127, 0};

TEST(JaggedPadded, EachWayAgreesWithTheReferenceCutOrFilled) {
  for (const std::int64_t n : {1, 64, 130}) {
    for (auto& [jagged, padded] : conversions(kLengths, n)) {
      jagged.randomise(1);
      reference::Samples expected = jagged.in_double();
      for (reference::Matrix& sample : expected) {
        const std::int64_t cols = padded.in_double()[0].cols;
        sample = reference::resized(sample, n, cols, -2);
      }
      jagged_to_padded(jagged.view(), -2, padded.fill(7).view(), Stream(Device::cpu(), 2));
      expect_close(padded, expected, 0);

      reference::Samples back = jagged.in_double();
      for (std::size_t b = 0; b < back.size(); ++b) {
        back[b] = reference::resized(expected[b], std::min(n, back[b].rows),
                                     std::min(expected[b].cols, back[b].cols), 0);
        back[b] =
            reference::resized(back[b], jagged.in_double()[b].rows, jagged.in_double()[b].cols, 0);
      }
      padded_to_jagged(padded.view(), jagged.fill(7).view(), Stream(Device::cpu(), 2));
      expect_close(jagged, back, 0);
    }
  }
}

// <d, to_padded(x)> = <to_jagged(d), x>: each is the other's backward.
TEST(JaggedPadded, EachIsTheBackwardOfTheOther) {
  for (auto& [jagged, padded] : conversions({0, 3, 1, 6, 4}, 4)) {
    HostBatch d_jagged = jagged, d_padded = padded;
    jagged_to_padded(jagged.randomise(1).view(), 0, padded.view(), Stream());
    padded_to_jagged(d_padded.randomise(2).view(), d_jagged.view(), Stream());
    double forward = 0, backward = 0;
    for (std::size_t b = 0; b < 5; ++b) {
      forward += dot(d_padded.in_double()[b], padded.in_double()[b]);
      backward += dot(d_jagged.in_double()[b], jagged.in_double()[b]);
    }
    EXPECT_NE(forward, 0);
    EXPECT_NEAR(forward, backward, 1e-12);
  }
}

TEST(JaggedPadded, EmptyBatchesAndErrors) {
  for (auto& [jagged, padded] : conversions({}, 4)) {
    jagged_to_padded(jagged.view(), 0, padded.view(), Stream());
    padded_to_jagged(padded.view(), jagged.view(), Stream());
    EXPECT_TRUE(jagged.nothing_else_written());
  }
  HostBatch jagged = HostBatch::jagged({2, 3}, 4), padded = HostBatch::dense(3, 3, 4);
  EXPECT_THROW(jagged_to_padded(jagged.view(), 0, padded.view(), Stream()), Error);
  HostBatch shared = HostBatch::shared(2, 3, 4);
  EXPECT_THROW(jagged_to_padded(jagged.view(), 0, shared.view(), Stream()), Error);
  std::vector<float> values(7 * 4);
  const MatrixView<float> seven_rows(values.data(), 7, 4);
  EXPECT_THROW(MatrixBatch<float>::dense(seven_rows, 2), Error);
  EXPECT_THROW(MatrixBatch<float>::dense(seven_rows, 0), Error);
  EXPECT_EQ(MatrixBatch<float>::dense(seven_rows, 7).rows, 1);
}

TEST(JaggedConcat, JoinsRowsAndSplitsThemAgain) {
  const Lengths x_lengths = {0, 1, 0, 70, 3}, y_lengths = {2, 0, 0, 130, 64};
  for (const std::int64_t cols : {1, 5, 64}) {
    HostBatch x = HostBatch::jagged(x_lengths, cols), y = HostBatch::jagged(y_lengths, cols);
    HostBatch z = HostBatch::jagged({2, 1, 0, 200, 67}, cols);
    jagged_concat(x.randomise(1).view(), y.randomise(2).view(), z.view(), Stream(Device::cpu(), 2));
    reference::Samples expected;
    for (std::size_t b = 0; b < x_lengths.size(); ++b) {
      expected.push_back(reference::concat(x.in_double()[b], y.in_double()[b]));
    }
    expect_close(z, expected, 0);
    HostBatch x_again = x, y_again = y;
    jagged_split(z.view(), x_again.fill(7).view(), y_again.fill(7).view(),
                 Stream(Device::cpu(), 2));
    expect_same_bits(x, x_again);
    expect_same_bits(y, y_again);

    std::vector<std::int64_t> offsets(6);
    jagged_concat_offsets(x.view(), y.view(), offsets, Stream());
    EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 2, 3, 3, 203, 270}));
  }
}

TEST(JaggedConcat, PrependsADenseRow) {
  HostBatch row = HostBatch::dense(3, 1, 1), x = HostBatch::jagged({2, 0, 1}, 1);
  std::vector<std::int64_t> offsets(4);
  jagged_concat_offsets(row.view(), x.view(), offsets, Stream());
  EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 3, 4, 6}));
  float next = 1;
  row.for_each([&](float& value) { value = next++; });
  x.for_each([&](float& value) { value = next++; });
  std::vector<float> z(6);
  jagged_concat(row.view(), x.view(), MatrixBatch<float>::jagged({z.data(), 6, 1}, offsets),
                Stream());
  EXPECT_EQ(z, (std::vector<float>{1, 4, 5, 2, 3, 6}));
}

TEST(JaggedConcat, BadArgumentsAreErrors) {
  HostBatch x = HostBatch::jagged({1, 2}, 4), y = HostBatch::jagged({2, 0}, 4);
  HostBatch narrow = HostBatch::jagged({3, 2}, 3), shorter = HostBatch::jagged({3, 1}, 4);
  for (HostBatch* bad : {&narrow, &shorter}) {
    EXPECT_THROW(jagged_concat(x.view(), y.view(), bad->view(), Stream()), Error);
    EXPECT_THROW(jagged_split(bad->view(), x.view(), y.view(), Stream()), Error);
  }
}

TEST(JaggedPairs, OffsetsAddUpProducts) {
  std::vector<std::int64_t> offsets(4);
  const std::vector<std::int64_t> rows = {5, 7, 7, 10}, cols = {0, 3, 9, 10};
  pair_offsets(rows, cols, offsets, Stream());
  EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 2 * 3, 6, 6 + 3 * 1}));
  EXPECT_THROW(pair_offsets(rows, std::span(cols).first(3), offsets, Stream()), Error);
}

TEST(JaggedPairs, SelfSubtractionByHandKeepsAllDigits) {
  const std::int64_t late = 1'700'000'000'000'000;  // more than a double's digits with what follows
  const std::vector<std::int64_t> x = {99, late, late + 1, late + 4, 8, 99}, offsets = {1, 4, 4, 5};
  std::vector<std::int64_t> z_offsets(4), z(6, 77);
  self_subtraction_offsets(offsets, z_offsets, Stream());
  EXPECT_EQ(z_offsets, (std::vector<std::int64_t>{0, 4, 4, 4}));
  const JaggedSelfSubtraction args{x, offsets, z, z_offsets};
  jagged_self_subtraction(args, Stream(Device::cpu(), 2));
  EXPECT_EQ(z, (std::vector<std::int64_t>{-1, -4, 0, -3, 77, 77}));
  z_offsets[1] = 3;
  EXPECT_THROW(jagged_self_subtraction(args, Stream()), Error);
}

TEST(JaggedPairs, SelfSubtractionOfManyLengths) {
  const Lengths lengths = {0, 1, 2, 65, 0, 200};
  std::vector<std::int64_t> x, offsets = {0}, z_offsets(lengths.size() + 1), expected;
  for (const std::int64_t length : lengths) {
    for (std::int64_t i = 0; i < length; ++i) x.push_back((i * i * 37 + length) % 1009);
    offsets.push_back(offsets.back() + length);
    const std::int64_t* times = x.data() + x.size() - length;
    for (std::int64_t i = 0; i + 1 < length; ++i) {
      for (std::int64_t j = 1; j < length; ++j) expected.push_back(times[i] - times[j]);
    }
  }
  self_subtraction_offsets(offsets, z_offsets, Stream());
  std::vector<std::int64_t> z(z_offsets.back());
  jagged_self_subtraction({x, offsets, z, z_offsets}, Stream(Device::cpu(), 2));
  EXPECT_EQ(z, expected);
}

}  // namespace
}  // namespace serrate
