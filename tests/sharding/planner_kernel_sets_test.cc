// The choice of tables for host memory, against all choices of small problems.
#include "sharding/planner/kernel_sets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <random>

namespace serrate {
namespace {

using enum ComputeKernel;
constexpr std::array kKernels{kFused, kFusedUvmCaching, kFusedUvm};

Candidate on_one_rank(ComputeKernel kernel, double ms, std::int64_t device_bytes) {
  Candidate c{.kernel = kernel};
  c.time = {.forward_compute = ms, .device_bytes = device_bytes};
  c.work = c.time;
  c.memory = {{1, device_bytes, 0}};
  return c;
}

PlannerItem item_of(std::array<double, 3> ms, std::array<std::int64_t, 3> device_bytes) {
  PlannerItem item;
  for (int k = 0; k < 3; ++k) {
    item.candidates.push_back(on_one_rank(kKernels[k], ms[k], device_bytes[k]));
  }
  return item;
}

PlannerProblem problem_of(std::vector<PlannerItem> items, std::int64_t device_bytes) {
  return {.world_size = 2,
          .device_bytes = {device_bytes, device_bytes},
          .host_bytes = {1'000'000, 1'000'000},
          .items = std::move(items)};
}

// Summed over the items, of the one candidate that each is left with.
struct Sum {
  double ms = 0;
  std::int64_t device_bytes = 0;
};
Sum sum_of(const PlannerProblem& problem, const Allowed& allowed) {
  Sum sum;
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    EXPECT_EQ(std::ranges::count(allowed[i], true), 1);
    const auto c = std::ranges::find(allowed[i], true) - allowed[i].begin();
    sum.ms += problem.items[i].candidates[c].time.forward_compute;
    sum.device_bytes += problem.items[i].candidates[c].total_device_bytes();
  }
  return sum;
}

TEST(PlannerKernelSets, FirstIsTheCheapestOfAll) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr int kItems = 6, kChoices = 729;  // 3^6
  std::mt19937_64 engine(1);
  const auto below = [&](int n) { return static_cast<int>(engine() % n); };
  for (int instance = 0; instance < 300; ++instance) {
    SCOPED_TRACE(instance);
    std::vector<PlannerItem> items;
    std::int64_t all_bytes = 0;
    for (int i = 0; i < kItems; ++i) {
      const std::int64_t bytes = 10 + below(90);
      const double ms = 1 + below(50);
      items.push_back(item_of({1, 1 + ms, 1 + 6 * ms}, {bytes, bytes / 5, 0}));
      all_bytes += bytes;
    }
    const PlannerProblem problem = problem_of(items, all_bytes * (2 + below(8)) / 20);
    double cheapest = kInfinity;
    for (int choice = 0; choice < kChoices; ++choice) {
      double ms = 0;
      std::int64_t bytes = 0;
      for (int i = 0, rest = choice; i < kItems; ++i, rest /= 3) {
        ms += items[i].candidates[rest % 3].time.forward_compute;
        bytes += items[i].candidates[rest % 3].total_device_bytes();
      }
      if (bytes <= 2 * problem.device_bytes[0]) cheapest = std::min(cheapest, ms);
    }
    const auto sets = kernel_sets(problem, {}, kInfinity);
    ASSERT_FALSE(sets.empty());
    EXPECT_EQ(sum_of(problem, sets.front()).ms, cheapest);
    for (const Allowed& set : sets) {
      EXPECT_LE(sum_of(problem, set).device_bytes, 2 * problem.device_bytes[0]);
    }
    // Two ranks: of what takes twice the mean.
    EXPECT_TRUE(kernel_sets(problem, {}, 0.49 * cheapest).empty());
  }
}

TEST(PlannerKernelSets, NoneWhereAllFitTheDevices) {
  const auto sets = [](std::int64_t bytes) {
    const auto item = item_of({1, 2, 3}, {bytes, 20, 0});
    return kernel_sets(problem_of({item, item}, 50), {}, 10);
  };
  EXPECT_TRUE(sets(45).empty());
  // All fit, but so tightly that sets that leave some memory free are worth trying.
  EXPECT_FALSE(sets(49).empty());
}

TEST(PlannerKernelSets, NoLongShardsInHostMemory) {
  // Whole, or in two shards that take a little more together.
  PlannerItem item{.candidates = {on_one_rank(kFused, 1, 60), on_one_rank(kFusedUvm, 9, 0),
                                  on_one_rank(kFusedUvm, 5, 0)}};
  item.candidates.back().work.forward_compute = 10;
  const PlannerProblem problem = problem_of({item}, 20);
  using Sets = std::vector<Allowed>;
  const Allowed any{{false, true, true}}, short_ones{{false, false, true}};
  EXPECT_EQ(kernel_sets(problem, {}, std::numeric_limits<double>::infinity()), Sets{any});
  EXPECT_EQ(kernel_sets(problem, {}, 10), (Sets{any, short_ones}));  // at most 10, 6
  EXPECT_EQ(kernel_sets(problem, {}, 8), Sets{short_ones});          // at most 8
  EXPECT_EQ(kernel_sets(problem, {}, 4), Sets{});
}

}  // namespace
}  // namespace serrate
