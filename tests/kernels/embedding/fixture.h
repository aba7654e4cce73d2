#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/device_span.h"
#include "serrate/random.h"
#include "tests/reference/embedding.h"
#include "tests/support/devices.h"

namespace serrate {

/// A matrix on a stream's device, with columns behind each row that no kernel may write: so many
/// that rows of fours of columns are aligned to 16 bytes, unless it is said how many.
class TestMatrix {
 public:
  TestMatrix(const reference::Matrix& values, const Stream& stream)
      : TestMatrix(values, stream, values.cols % 4 == 0 ? 4 : 3) {}
  TestMatrix(const reference::Matrix& values, const Stream& stream, std::int64_t gap)
      : rows_(values.rows), cols_(values.cols), stride_(cols_ + gap) {
    std::vector<float> host(rows_ * stride_, kGuard);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < cols_; ++c) {
        host[r * stride_ + c] = static_cast<float>(values(r, c));
      }
    }
    values_ = Buffer<float>(host, stream);
    stream.synchronize();
  }
  DeviceMatrix<float> view() { return {values_.device_data(), rows_, cols_, stride_}; }
  /// With what stands behind each row.
  std::vector<float> raw(const Stream& stream) const { return values_.to_host(stream); }
  reference::Matrix to_host(const Stream& stream) const {
    const std::vector<float> host = raw(stream);
    reference::Matrix result(rows_, cols_);
    for (std::int64_t r = 0; r < rows_; ++r) {
      for (std::int64_t c = 0; c < stride_; ++c) {
        if (c < cols_) {
          result(r, c) = host[r * stride_ + c];
        } else {
          EXPECT_EQ(host[r * stride_ + c], kGuard) << "written past the columns of row " << r;
        }
      }
    }
    return result;
  }

 private:
  static constexpr float kGuard = -12345;
  std::int64_t rows_, cols_, stride_;
  Buffer<float> values_;
};

/// Bags on a stream's device.
struct DeviceBags {
  Buffer<std::int64_t> indices, offsets;
  Buffer<float> weights;

  DeviceBags(const reference::Bags& bags, const Stream& stream)
      : indices(bags.indices, stream),
        offsets(bags.offsets, stream),
        weights(bags.weights, stream) {
    stream.synchronize();
  }
};

inline reference::Matrix matrix(std::int64_t rows, std::int64_t cols,
                                const std::vector<double>& values) {
  reference::Matrix result(rows, cols);
  result.values = values;
  return result;
}

/// Floats, uniform in [-1, 1).
inline reference::Matrix random_matrix(std::int64_t rows, std::int64_t cols, std::uint32_t seed) {
  reference::Matrix result(rows, cols);
  for (std::size_t i = 0; i < result.values.size(); ++i) {
    result.values[i] = static_cast<float>(2 * random_uniform(seed, RandomUse::kInit, 0, i) - 1);
  }
  return result;
}

/// Bags of 0 to `longest` ids, a third of them empty.
inline reference::Bags random_bags(std::int64_t num_bags, std::int64_t num_rows,
                                   std::int64_t longest, bool weighted, std::uint32_t seed) {
  reference::Bags bags;
  bags.offsets = {7};
  for (std::int64_t bag = 0; bag < num_bags; ++bag) {
    const std::int64_t length = random_below(seed, RandomUse::kInit, 1, bag, longest * 3 / 2 + 1);
    bags.offsets.push_back(bags.offsets.back() + (length > longest ? 0 : length));
  }
  for (std::int64_t i = 0; i < bags.offsets.back() - bags.offsets.front(); ++i) {
    bags.indices.push_back(random_below(seed, RandomUse::kInit, 2, i, num_rows));
    if (weighted) {
      bags.weights.push_back(
          static_cast<float>(random_uniform(seed, RandomUse::kInit, 3, i) * 2 - 0.5));
    }
  }
  return bags;
}

inline void expect_near(const reference::Matrix& actual, const reference::Matrix& expected,
                        double tolerance) {
  ASSERT_EQ(actual.rows, expected.rows);
  ASSERT_EQ(actual.cols, expected.cols);
  for (std::int64_t r = 0; r < expected.rows; ++r) {
    for (std::int64_t c = 0; c < expected.cols; ++c) {
      ASSERT_NEAR(actual(r, c), expected(r, c), tolerance * std::max(1.0, std::abs(expected(r, c))))
          << "row " << r << ", column " << c;
    }
  }
}

/// One suite per op, for each device of the binary.
class EmbeddingTest : public testing::TestWithParam<Device> {
 protected:
  Stream stream{GetParam()};
};

/// Widths around those of the vector units.
inline const std::vector<std::int64_t> kDims = {1,  3,  4,   8,   10,  16,  20,  32,
                                                50, 64, 100, 128, 256, 300, 1024};

}  // namespace serrate
