#include "sharding/estimate/zipf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace serrate {
namespace {

// Row by row, in the order of the definition.
std::vector<double> probabilities(int num_rows, double exponent) {
  std::vector<double> p;
  double sum = 0;
  for (int k = 1; k <= num_rows; ++k) sum += p.emplace_back(std::pow(k, -exponent));
  for (double& value : p) value /= sum;
  return p;
}

TEST(Zipf, DistinctIdsByHand) {
  // Two rows alike: the second draw finds the other one half of the time.
  EXPECT_DOUBLE_EQ(expected_distinct(2, 2, 0), 1.5);
  // Probabilities 2/3 and 1/3: 2 - (1/3)^2 - (2/3)^2.
  EXPECT_NEAR(expected_distinct(2, 2, 1), 2 - 5.0 / 9, 1e-12);
  EXPECT_DOUBLE_EQ(expected_distinct(5, 1, 1.2), 1);
  EXPECT_DOUBLE_EQ(expected_distinct(0, 10, 1.2), 0);
}

TEST(Zipf, DistinctIdsAsRowByRow) {
  for (const int num_rows : {1, 2, 63, 64, 65, 66, 1000, 200'000}) {
    for (const double exponent : {0.0, 0.5, 0.9, 1.0, 1.05, 1.5, 3.0}) {
      const auto p = probabilities(num_rows, exponent);
      for (const double draws : {0.5, 1.0, 10.0, 3000.0, 1e6}) {
        double expected = 0;
        for (const double value : p) expected += 1 - std::pow(1 - value, draws);
        EXPECT_NEAR(expected_distinct(draws, num_rows, exponent), expected, 1e-4 * expected + 1e-4)
            << num_rows << " rows, exponent " << exponent << ", " << draws << " draws";
      }
    }
  }
}

TEST(Zipf, ShareOfTheMostFrequent) {
  EXPECT_DOUBLE_EQ(share_of_draws(2, 8, 0), 0.25);
  EXPECT_NEAR(share_of_draws(1, 3, 1), 6.0 / 11, 1e-12);
  const auto p = probabilities(100'000, 1.05);
  double expected = 0;
  for (int k = 0; k < 20'000; ++k) expected += p[k];
  EXPECT_NEAR(share_of_draws(20'000, 100'000, 1.05), expected, 1e-4);
}

}  // namespace
}  // namespace serrate
