#include "sharding/planner/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace serrate {
namespace {

using enum PackingFunction::Kind;

// Parts that fill a rank or nearly do sum to 1 at most by every function.
TEST(PlannerPacking, NoRankIsBeyondOne) {
  constexpr int kRanks = 200'000;
  std::mt19937_64 engine(1);
  const auto uniform = [&] { return static_cast<double>(engine() >> 11) * 0x1p-53; };
  double most = 0;
  for (int i = 0; i < kRanks; ++i) {
    std::vector<double> parts(1 + engine() % 6);
    double sum = 0;
    for (double& part : parts) sum += part = 0.01 + uniform() * uniform();
    const double filled = uniform() < 0.5 ? 1 : uniform();
    for (double& part : parts) part *= filled / sum * (1 - 1e-12);
    // Parameters that are parts, or the rest beside them, are those that matter.
    double parameter = parts[engine() % parts.size()];
    if (parameter > 0.5) parameter = (1 - parameter) * (1 + 1e-6);
    if (parameter <= 1e-3) continue;
    std::vector<PackingFunction> functions{{kCommonParts, static_cast<double>(1 + engine() % 8)}};
    functions.push_back({kThreshold, parameter});
    functions.push_back({kRest, parameter});
    if (1 / parameter - std::floor(1 / parameter) < 0.99) functions.push_back({kSteps, parameter});
    for (const PackingFunction& f : functions) {
      double by_function = 0;
      for (const double part : parts) by_function += f(part);
      ASSERT_LE(by_function, 1 + 1e-9) << static_cast<int>(f.kind) << " of " << f.parameter;
      most = std::max(most, by_function - filled);
    }
  }
  EXPECT_GT(most, 0.4);  // more than the parts themselves
}

// By hand: three parts of 0.4 need two ranks, of 0.6 three, of 0.35 two.
TEST(PlannerPacking, CountsWhatDoesNotComeApart) {
  EXPECT_EQ((PackingFunction{kCommonParts, 2}(0.4)), 0.5);
  EXPECT_EQ((PackingFunction{kThreshold, 0.45}(0.6)), 1);
  EXPECT_EQ((PackingFunction{kThreshold, 0.45}(0.4)), 0);
  EXPECT_EQ((PackingFunction{kRest, 0.35}(0.35)), 0.5);
  EXPECT_EQ((PackingFunction{kRest, 0.35}(0.7)), 1);
  EXPECT_NEAR((PackingFunction{kSteps, 0.4}(0.4)), 0.5, 1e-12);
}

}  // namespace
}  // namespace serrate
