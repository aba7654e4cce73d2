// On the CPU, batches whose outputs go past the caches (16 MB): 20,000 samples, most of them short,
// one huge.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "serrate/kernels/jagged_bmm.h"
#include "serrate/kernels/jagged_concat.h"
#include "serrate/kernels/jagged_elementwise.h"
#include "serrate/kernels/jagged_padded.h"
#include "serrate/kernels/jagged_pairs.h"
#include "serrate/kernels/jagged_softmax.h"

namespace serrate {
namespace {

constexpr std::int64_t kBatchSize = 20'000, kHuge = 2'200, kHugeSample = 12'345, kDim = 64;

// Beyond the last offset there is one row more, which no op may touch.
struct Batch {
  std::vector<std::int64_t> offsets = {0};

  Batch() {
    for (std::int64_t b = 0; b < kBatchSize; ++b) {
      offsets.push_back(offsets.back() + (b == kHugeSample ? kHuge : b * 7919 % 8));
    }
  }
  std::int64_t length(std::int64_t b) const { return offsets[b + 1] - offsets[b]; }
  std::vector<float> values(std::int64_t cols, std::int64_t seed) const {
    std::vector<float> result((offsets.back() + 1) * cols);
    for (std::size_t i = 0; i < result.size(); ++i) {
      result[i] = static_cast<float>((static_cast<std::int64_t>(i) + seed) * 7919 % 1009) / 1009;
    }
    return result;
  }
  template <typename T>
  MatrixBatch<T> view(std::vector<std::remove_const_t<T>>& values, std::int64_t cols) const {
    return MatrixBatch<T>::jagged({values.data(), offsets.back() + 1, cols}, on_cpu(offsets));
  }
};

const Batch& batch() {
  static const Batch only;
  return only;
}

const Stream kStream(Device::cpu(), 2);
constexpr float kUntouched = 77;

// f(sample, row in the sample, row in the batch)
template <typename F>
void for_each_row(const F& f) {
  for (std::int64_t b = 0; b < kBatchSize; ++b) {
    for (std::int64_t r = 0; r < batch().length(b); ++r) f(b, r, batch().offsets[b] + r);
  }
}

MatrixBatch<float> dense(std::vector<float>& values, std::int64_t rows, std::int64_t cols) {
  return MatrixBatch<float>::dense({values.data(), kBatchSize * rows, cols}, kBatchSize);
}

class JaggedLargeElementwise : public testing::TestWithParam<Elementwise> {};
INSTANTIATE_TEST_SUITE_P(Both, JaggedLargeElementwise,
                         testing::Values(Elementwise::kAdd, Elementwise::kMultiply));

TEST_P(JaggedLargeElementwise, ForwardAndBackwardEqualTheDefinitionBitForBit) {
  constexpr std::int64_t kRows = 5;
  const bool is_sum = GetParam() == Elementwise::kAdd;
  std::vector<float> x = batch().values(kDim, 1), y = batch().values(kDim, 2);
  std::vector<float> d_z = batch().values(kDim, 3);
  y.resize(kBatchSize * kRows * kDim, 0.5f);
  std::vector<float> z(x.size(), kUntouched), d_x = z, d_y(y.size(), kUntouched);
  std::vector<float> want = z, want_d_x = z, want_d_y(y.size(), 0.0f);
  for_each_row([&](std::int64_t b, std::int64_t r, std::int64_t row) {
    for (std::int64_t c = 0; c < kDim; ++c) {
      const std::int64_t i = row * kDim + c, j = (b * kRows + r) * kDim + c;
      const float of_y = r < kRows ? y[j] : 0;
      want[i] = is_sum ? x[i] + of_y : x[i] * of_y;
      want_d_x[i] = is_sum ? d_z[i] : d_z[i] * of_y;
      if (r < kRows) want_d_y[j] = is_sum ? d_z[i] : d_z[i] * x[i];
    }
  });
  const auto ys = dense(y, kRows, kDim);
  jagged_elementwise_forward(
      {GetParam(), batch().view<const float>(x, kDim), ys, batch().view<float>(z, kDim)}, kStream);
  EXPECT_TRUE(z == want);
  jagged_elementwise_backward(
      {GetParam(), batch().view<const float>(x, kDim), ys, batch().view<const float>(d_z, kDim),
       batch().view<float>(d_x, kDim), dense(d_y, kRows, kDim)},
      kStream);
  EXPECT_TRUE(d_x == want_d_x);
  EXPECT_TRUE(d_y == want_d_y);
}

TEST(JaggedLarge, ConversionsEqualTheDefinition) {
  for (const std::int64_t n : {7, 16}) {  // columns that are whole vectors, and such that are not
    for (const float padding : {0.0f, -2.0f}) {
      const std::int64_t cols = n == 16 ? 16 : 37;
      std::vector<float> x = batch().values(cols, 1);
      std::vector<float> padded(kBatchSize * n * cols, kUntouched);
      std::vector<float> want(padded.size(), padding);
      std::vector<float> back(x.size(), kUntouched), want_back = back;
      for_each_row([&](std::int64_t b, std::int64_t r, std::int64_t row) {
        for (std::int64_t c = 0; c < cols; ++c) {
          const float value = x[row * cols + c];
          want_back[row * cols + c] = r < n ? value : 0;
          if (r < n) want[(b * n + r) * cols + c] = value;
        }
      });
      jagged_to_padded(batch().view<const float>(x, cols), padding, dense(padded, n, cols),
                       kStream);
      EXPECT_TRUE(padded == want);
      padded_to_jagged(dense(padded, n, cols), batch().view<float>(back, cols), kStream);
      EXPECT_TRUE(back == want_back);
    }
  }
}

TEST(JaggedLarge, ConcatPrependsARow) {
  std::vector<float> row(kBatchSize * kDim, 3), x = batch().values(kDim, 1), want;
  std::vector<std::int64_t> offsets(kBatchSize + 1);
  const auto first = dense(row, 1, kDim);
  const auto rest = batch().view<const float>(x, kDim);
  jagged_concat_offsets(first, rest, on_cpu(offsets), kStream);
  for (std::int64_t b = 0; b < kBatchSize; ++b) {
    want.insert(want.end(), kDim, 3);
    want.insert(want.end(), x.begin() + batch().offsets[b] * kDim,
                x.begin() + batch().offsets[b + 1] * kDim);
  }
  std::vector<float> z(want.size() + kDim, kUntouched);
  want.insert(want.end(), kDim, kUntouched);
  const auto joined =
      MatrixBatch<float>::jagged({z.data(), offsets.back() + 1, kDim}, on_cpu(offsets));
  jagged_concat(first, rest, joined, kStream);
  EXPECT_TRUE(z == want);
  std::vector<float> row_again(row.size()), x_again = x;
  std::fill_n(x_again.begin(), batch().offsets.back() * kDim, 0.0f);
  jagged_split(joined, dense(row_again, 1, kDim), batch().view<float>(x_again, kDim), kStream);
  EXPECT_TRUE(row_again == row && x_again == x);
}

struct Pairs {
  std::vector<std::int64_t> offsets = std::vector<std::int64_t>(kBatchSize + 1);

  Pairs() {
    pair_offsets(on_cpu(batch().offsets), on_cpu(batch().offsets), on_cpu(offsets), kStream);
  }
  MatrixBatch<float> view(std::vector<float>& values) const {
    return MatrixBatch<float>::pairs(on_cpu(values), on_cpu(offsets), on_cpu(batch().offsets),
                                     on_cpu(batch().offsets));
  }
  std::vector<float> values() const {
    std::vector<float> result(offsets.back() + 1, kUntouched);
    for (std::int64_t i = 0; i < offsets.back(); ++i) {
      result[i] = static_cast<float>(i * 31 % 1013) / 200;
    }
    return result;
  }
};

TEST(JaggedLarge, SoftmaxOfPairsEqualsTheDefinition) {
  const Pairs pairs;
  for (const SoftmaxAxis axis : {SoftmaxAxis::kRows, SoftmaxAxis::kColumns}) {
    std::vector<float> x = pairs.values(), z(x.size(), kUntouched);
    jagged_softmax_forward({pairs.view(x), pairs.view(z), axis}, kStream);
    EXPECT_EQ(z.back(), kUntouched);
    double worst = 0;
    for (std::int64_t b = 0; b < kBatchSize; ++b) {
      const std::int64_t n = batch().length(b), first = pairs.offsets[b];
      const std::int64_t along = axis == SoftmaxAxis::kRows ? n : 1, across = n + 1 - along;
      for (std::int64_t line = 0; line < n; ++line) {
        const auto at = [&](std::int64_t i) { return first + line * across + i * along; };
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i) sum += std::exp(double{x[at(i)]});
        for (std::int64_t i = 0; i < n; ++i) {
          const double want = std::exp(double{x[at(i)]}) / sum;
          worst = std::max(worst, std::abs(z[at(i)] - want) / want);
        }
      }
    }
    EXPECT_LT(worst, 3e-6);
  }
}

TEST(JaggedLarge, MaskedPairsAndTheirGradientsEqualTheDefinitionBitForBit) {
  constexpr std::int64_t kMask = 2'000;  // the huge sample has more rows and columns
  const Pairs pairs;
  std::vector<float> x = pairs.values(), z(x.size(), kUntouched), want = z, d_x = z;
  std::vector<float> mask(kMask * kMask), d_mask(mask.size(), kUntouched);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = static_cast<float>(i % 3) - 1;
  std::vector<double> want_d_mask(mask.size(), 0.0);
  for (std::int64_t b = 0; b < kBatchSize; ++b) {
    const std::int64_t n = batch().length(b);
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t c = 0; c < n; ++c) {
        const std::int64_t i = pairs.offsets[b] + r * n + c;
        const bool is_in = r < kMask && c < kMask;
        want[i] = is_in ? x[i] * mask[r * kMask + c] : 0;
        if (is_in) want_d_mask[r * kMask + c] += double{x[i]} * x[i];
      }
    }
  }
  const auto op = Elementwise::kMultiply;
  const auto shared = MatrixBatch<float>::shared({mask.data(), kMask, kMask}, kBatchSize);
  jagged_elementwise_forward({op, pairs.view(x), shared, pairs.view(z)}, kStream);
  EXPECT_TRUE(z == want);
  jagged_elementwise_backward(
      {op, pairs.view(x), shared, pairs.view(x), pairs.view(d_x),
       MatrixBatch<float>::shared({d_mask.data(), kMask, kMask}, kBatchSize)},
      kStream);
  EXPECT_TRUE(d_x == want);
  double worst = 0;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    worst = std::max(worst, std::abs(d_mask[i] - want_d_mask[i]) / (1 + want_d_mask[i]));
  }
  EXPECT_LT(worst, 1e-4);  // up to 2,500 terms a sum
}

TEST(JaggedLarge, ProductsEqualTheDefinition) {
  constexpr std::int64_t kIn = 6, kOut = 5;
  std::vector<float> x = batch().values(kIn, 1), y(kBatchSize * kIn * kOut), by_y;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(i % 11) / 11;
  std::vector<float> z((batch().offsets.back() + 1) * kOut, kUntouched), d_y(y.size(), kUntouched);
  jagged_bmm_forward(
      {batch().view<const float>(x, kIn), dense(y, kIn, kOut), batch().view<float>(z, kOut)},
      kStream);
  jagged_bmm_forward({batch().view<const float>(x, kIn), batch().view<const float>(z, kOut),
                      dense(d_y, kIn, kOut), Transposed::kLeft},
                     kStream);
  double worst = 0;
  std::vector<double> want_d_y(y.size(), 0.0);
  for_each_row([&](std::int64_t b, std::int64_t, std::int64_t row) {
    for (std::int64_t t = 0; t < kOut; ++t) {
      double want = 0;
      for (std::int64_t k = 0; k < kIn; ++k) {
        want += double{x[row * kIn + k]} * y[(b * kIn + k) * kOut + t];
        want_d_y[(b * kIn + k) * kOut + t] += double{x[row * kIn + k]} * z[row * kOut + t];
      }
      worst = std::max(worst, std::abs(z[row * kOut + t] - want) / (1 + want));
    }
  });
  for (std::size_t i = 0; i < y.size(); ++i) {
    worst = std::max(worst, std::abs(d_y[i] - want_d_y[i]) / (1 + want_d_y[i]));
  }
  EXPECT_LT(worst, 1e-5);
  EXPECT_EQ(std::count(z.end() - kOut, z.end(), kUntouched), kOut);
}

}  // namespace
}  // namespace serrate
