// Each objective's plan beside the other's, with little memory and with plenty.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "sharding/planner/problem.h"
#include "tests/sharding/random_instance.h"

namespace serrate {
namespace {

constexpr int kInstances = random_problems(600);

// Every rank gets the same: `part` times what all tables take at least, together, of the memory
// that they are in first.
void set_memory(PlannerInstance& instance, PlannerEstimator estimator, double part) {
  PlannerTopology& t = instance.topology;
  const bool on_device = t.device == PlannerDevice::kCuda;
  double bytes = 0;
  for (const PlannerItem& item : planner_problem(instance.model, t, estimator).items) {
    double least = std::numeric_limits<double>::infinity();
    for (const Candidate& c : item.candidates) {
      const bool is_there = c.kernel == ComputeKernel::kDense || c.kernel == ComputeKernel::kFused;
      if (!is_there) continue;
      const std::int64_t of = on_device ? c.total_device_bytes() : c.total_host_bytes();
      least = std::min(least, static_cast<double>(of));
    }
    bytes += least;
  }
  auto& near = on_device ? t.device_bytes : t.host_bytes;
  std::ranges::fill(near, static_cast<std::int64_t>(part * bytes / t.world_size) + 1);
  if (on_device) std::ranges::fill(t.host_bytes, static_cast<std::int64_t>(bytes) + 1);
}

TEST(PlannerObjectives, NeitherPlanIsBeatenByTheOthers) {
  RandomInstances instances(5);
  int planned = 0, differ = 0;
  for (int i = 0; i < kInstances; ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    const bool large = i % 100 == 0;
    PlannerInstance instance = instances.next(large ? 60 : 8, 2, large ? 8 : 3);
    const PlannerEstimator estimator = instances.any_estimator();
    const double most_more = i % 6 == 0 ? 1 : 0.28;  // plenty in every sixth
    set_memory(instance, estimator, 1.02 + most_more * instances.uniform());
    const auto plan = [&](PlannerObjective objective) {
      return plan_sharding(instance.model, instance.topology,
                           {.estimator = estimator, .objective = objective});
    };
    const PlannerResult rank = plan(PlannerObjective::kMaxRank);
    const PlannerResult path = plan(PlannerObjective::kCriticalPath);
    ASSERT_EQ(rank.feasible(), path.feasible()) << rank.infeasible << path.infeasible;
    if (!rank.feasible()) continue;
    ++planned;
    EXPECT_LE(rank.cost.max_rank, path.cost.max_rank);
    EXPECT_LE(path.cost.critical_path, rank.cost.critical_path);
    differ += rank.tables != path.tables;
  }
  EXPECT_GE(planned, kInstances / 2);
  EXPECT_GE(differ, planned / 10);
}

// Tables with up to 1e8 rows on 8 ranks of a node, whose devices hold three quarters of them.
PlannerInstance beyond_devices(std::uint64_t seed) {
  RandomInstances random(seed);
  const auto log_uniform = [&](double most) { return std::pow(most, random.uniform()); };
  PlannerInstance instance;
  instance.model.batch_size = 512;
  double bytes = 0;
  for (int i = 0; i < 24; ++i) {
    using enum ComputeKernel;
    PlannerTable t{.name = std::to_string(i)};
    t.num_rows = static_cast<std::int64_t>(1e3 * log_uniform(1e5));
    t.dim = 16 << random.between(0, 4);
    t.features = {{.pooling_factor = log_uniform(100)}};
    t.kernels = {kFused, kDense, kFusedUvm, kFusedUvmCaching};
    bytes += 4.0 * static_cast<double>(t.num_rows * t.dim);
    instance.model.tables.push_back(t);
  }
  PlannerTopology& t = instance.topology;
  t.world_size = t.ranks_per_node = 8;
  t.device_bytes.assign(8, static_cast<std::int64_t>(0.75 * bytes / 8));
  t.host_bytes.assign(8, std::int64_t{1} << 39);
  return instance;
}

// What no rank can be faster than, the critical path cannot either: the sum of the slowest ranks of
// each phase is no less than the slowest sum of a rank. The cases of the critical path alone leave
// it up to 32 % below.
TEST(PlannerObjectives, CriticalPathsAreNoShorterThanASlowestRank) {
  for (const std::uint64_t seed : {39, 41, 49}) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const PlannerInstance instance = beyond_devices(seed);
    const auto plan = [&](PlannerObjective objective) {
      return plan_sharding(instance.model, instance.topology, {.objective = objective});
    };
    const PlannerResult rank = plan(PlannerObjective::kMaxRank);
    const PlannerResult path = plan(PlannerObjective::kCriticalPath);
    ASSERT_TRUE(rank.feasible() && path.feasible());
    EXPECT_GE(path.bound, 0.98 * rank.bound);
    EXPECT_LE(path.bound, path.cost.critical_path);
  }
}

}  // namespace
}  // namespace serrate
