#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "serrate/matrix_batch.h"
#include "serrate/random.h"
#include "tests/reference/jagged.h"
#include "tests/support/test_array.h"
#include "tests/support/test_sizes.h"

namespace serrate {

/// A MatrixBatch of floats for host and device (TestArray). Everything around the samples, rows
/// before the first and behind the last and columns behind a row, is NaN: a kernel that reads or
/// writes it shows.
class TestBatch {
 public:
  using Lengths = std::vector<std::int64_t>;

  static TestBatch jagged(const Lengths& lengths, std::int64_t cols) {
    TestBatch batch(Kind::kJagged, lengths, Lengths(lengths.size(), cols));
    batch.cols_ = cols;
    batch.row_offsets_ = offsets_of(lengths, kBefore);
    return batch.allocate((batch.row_offsets_.host().back() + kAfter) * batch.stride());
  }
  static TestBatch dense(std::int64_t batch_size, std::int64_t rows, std::int64_t cols) {
    TestBatch batch(Kind::kDense, Lengths(batch_size, rows), Lengths(batch_size, cols));
    batch.cols_ = cols;
    batch.rows_ = rows;
    return batch.allocate(batch_size * rows * batch.stride());
  }
  static TestBatch shared(std::int64_t batch_size, std::int64_t rows, std::int64_t cols) {
    TestBatch batch(Kind::kShared, Lengths(batch_size, rows), Lengths(batch_size, cols));
    batch.cols_ = cols;
    batch.rows_ = rows;
    return batch.allocate(rows * batch.stride());
  }
  static TestBatch pairs(const Lengths& row_lengths, const Lengths& col_lengths) {
    TestBatch batch(Kind::kPairs, row_lengths, col_lengths);
    batch.row_offsets_ = offsets_of(row_lengths, 0);
    batch.col_offsets_ = offsets_of(col_lengths, 0);
    Lengths sizes;
    for (std::size_t b = 0; b < row_lengths.size(); ++b) {
      sizes.push_back(row_lengths[b] * col_lengths[b]);
    }
    batch.value_offsets_ = offsets_of(sizes, kBefore);
    return batch.allocate(batch.value_offsets_.host().back() + kAfter);
  }

  /// For an op; see TestArray::on().
  MatrixBatch<float> on(const Stream& stream) const {
    const auto batch_size = std::ssize(row_lengths_);
    const DeviceSpan<float> values = values_.on(stream);
    const DeviceMatrix<float> rows(values.device_data(), values_.size() / stride(), cols_,
                                   stride());
    switch (kind_) {
      case Kind::kJagged:
        return MatrixBatch<float>::jagged(rows, row_offsets_.on(stream));
      case Kind::kDense:
        return MatrixBatch<float>::dense(rows, batch_size);
      case Kind::kShared:
        return MatrixBatch<float>::shared(rows, batch_size);
      default:
        return MatrixBatch<float>::pairs(values, value_offsets_.on(stream), row_offsets_.on(stream),
                                         col_offsets_.on(stream));
    }
  }
  const std::vector<float>& values() const { return values_.host(); }

  /// f(value) for the values of all samples, in order.
  template <typename F>
  void for_each(const F& f) {
    const auto over_rows = [&](std::int64_t b, std::int64_t rows, std::int64_t cols) {
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < cols; ++c) f(row(b, r)[c]);
      }
    };
    if (kind_ == Kind::kShared) return over_rows(0, rows_, cols_);
    for (std::int64_t b = 0; b < std::ssize(row_lengths_); ++b) {
      over_rows(b, row_lengths_[b], col_lengths_[b]);
    }
  }
  TestBatch& fill(float value) {
    for_each([&](float& x) { x = value; });
    return *this;
  }
  /// Uniform in [-scale, scale).
  TestBatch& randomise(std::uint32_t seed, float scale = 1) {
    std::int64_t i = 0;
    for_each([&](float& x) {
      const double uniform = random_uniform(seed, RandomUse::kInit, 0, i++);
      x = scale * static_cast<float>(2 * uniform - 1);
    });
    return *this;
  }

  /// The matrices; one for every sample, of a shared one too.
  reference::Samples in_double() {
    reference::Samples samples;
    for (std::size_t b = 0; b < row_lengths_.size(); ++b) {
      reference::Matrix m(row_lengths_[b], col_lengths_[b]);
      for (std::int64_t r = 0; r < m.rows; ++r) {
        for (std::int64_t c = 0; c < m.cols; ++c) m(r, c) = row(b, r)[c];
      }
      samples.push_back(m);
    }
    return samples;
  }

  /// A batch of sample b alone.
  TestBatch only(std::int64_t b) {
    TestBatch one = alone(kind_, row_lengths_[b], col_lengths_[b]);
    for (std::int64_t r = 0; r < row_lengths_[b]; ++r) {
      std::copy_n(row(b, r), col_lengths_[b], one.row(0, r));
    }
    return one;
  }

  bool nothing_else_written() {
    std::int64_t inside = 0, numbers = 0;
    for_each([&](float& x) { inside += !std::isnan(x); });
    for (const float x : values_.host()) numbers += !std::isnan(x);
    return inside == numbers;
  }

 private:
  enum class Kind { kJagged, kDense, kShared, kPairs };
  static constexpr std::int64_t kBefore = 2, kAfter = 3;

  TestBatch(Kind kind, Lengths row_lengths, Lengths col_lengths)
      : kind_(kind), row_lengths_(std::move(row_lengths)), col_lengths_(std::move(col_lengths)) {}

  static Lengths offsets_of(const Lengths& lengths, std::int64_t first) {
    Lengths offsets = {first};
    for (const std::int64_t length : lengths) offsets.push_back(offsets.back() + length);
    return offsets;
  }
  static TestBatch alone(Kind kind, std::int64_t rows, std::int64_t cols) {
    switch (kind) {
      case Kind::kJagged:
        return jagged({rows}, cols);
      case Kind::kPairs:
        return pairs({rows}, {cols});
      case Kind::kShared:
        return shared(1, rows, cols);
      default:
        return dense(1, rows, cols);
    }
  }

  TestBatch& allocate(std::int64_t size) {
    values_ = TestArray<float>(size, std::numeric_limits<float>::quiet_NaN());
    return fill(0);
  }
  // Rows of 8 or 16 columns are aligned to 16 bytes, as kernels may like them; others are not.
  std::int64_t stride() const { return cols_ + (cols_ == 8 || cols_ == 16 ? 4 : 3); }
  float* row(std::int64_t b, std::int64_t r) {
    float* values = values_.host().data();
    switch (kind_) {
      case Kind::kJagged:
        return values + (row_offsets_[b] + r) * stride();
      case Kind::kDense:
        return values + (b * rows_ + r) * stride();
      case Kind::kShared:
        return values + r * stride();
      default:
        return values + value_offsets_[b] + r * col_lengths_[b];
    }
  }

  Kind kind_;
  Lengths row_lengths_, col_lengths_;
  TestArray<std::int64_t> row_offsets_, col_offsets_, value_offsets_;
  std::int64_t rows_ = 0, cols_ = 0;
  TestArray<float> values_;
};

/// Each element within `tolerance` of the expected, relative above 1; nothing around them written.
inline void expect_close(TestBatch& actual, const reference::Samples& expected, double tolerance) {
  EXPECT_TRUE(actual.nothing_else_written()) << "written outside the samples";
  const reference::Samples samples = actual.in_double();
  ASSERT_EQ(samples.size(), expected.size());
  for (std::size_t b = 0; b < samples.size(); ++b) {
    ASSERT_EQ(samples[b].rows, expected[b].rows);
    ASSERT_EQ(samples[b].cols, expected[b].cols);
    for (std::size_t i = 0; i < expected[b].values.size(); ++i) {
      const double want = expected[b].values[i];
      ASSERT_NEAR(samples[b].values[i], want, tolerance * std::max(1.0, std::abs(want)))
          << "sample " << b << ", row " << i / expected[b].cols << ", column "
          << i % expected[b].cols;
    }
  }
}

inline void expect_same_bits(const TestBatch& a, const TestBatch& b) {
  ASSERT_EQ(a.values().size(), b.values().size());
  EXPECT_EQ(std::memcmp(a.values().data(), b.values().data(), a.values().size() * sizeof(float)),
            0);
}

/// Lengths on both sides of what vectors and tiles hold; the longest on the CPU alone, as the
/// simulated device is slow.
inline TestBatch::Lengths lengths_around_tiles(Device device) {
  if (device.type != DeviceType::kCpu) return {0, 1, 7, 63, 64, 65, 0, 129, 0};
  return {0, 1, 7, 63, 64, 65, 127, 128, 129, 0, 200, 0};
}

/// op(x, y, z, threads) writes z: on any number of threads, and for every sample alone, the same.
template <typename Op>
void expect_bits_depend_on_the_sample_alone(TestBatch x, TestBatch y, TestBatch z, const Op& op) {
  op(x, y, z, 1);
  for (int threads = 2; threads <= most_threads(); ++threads) {
    TestBatch again = z;
    again.fill(0);
    op(x, y, again, threads);
    expect_same_bits(z, again);
  }
  for (std::size_t b = 0; b < z.in_double().size(); ++b) {
    TestBatch one_x = x.only(b), one_y = y.only(b), expected = z.only(b), actual = expected;
    actual.fill(0);
    op(one_x, one_y, actual, 1);
    expect_same_bits(expected, actual);
  }
}

}  // namespace serrate
