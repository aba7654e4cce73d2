// Each objective's plan beside the other's, with little memory and with plenty.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "sharding/planner/problem.h"
#include "tests/sharding/random_instance.h"

namespace serrate {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kInstances = 60;
#else
constexpr int kInstances = 600;
#endif

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

}  // namespace
}  // namespace serrate
