// The planner against an exhaustive search of small problems.
#include <gtest/gtest.h>

#include <cstdio>
#include <limits>
#include <span>

#include "sharding/estimate/estimator.h"
#include "sharding/estimate/serrate_estimator.h"
#include "sharding/planner/bound.h"
#include "sharding/planner/misfits.h"
#include "sharding/planner/problem.h"
#include "tests/sharding/exhaustive_search.h"
#include "tests/sharding/random_instance.h"

namespace serrate {
namespace {

struct Tally {
  int planned = 0;
  int close = 0;  // of them, within 1 % of the optimum
  int impossible = 0;
  int missed = 0;
  int bounds = 0;    // tested against the optimum
  int raised = 0;    // of them, above the bound to begin with
  int left_out = 0;  // candidates that no plan as good as the optimum has
};

// None that the best plan has is left out.
void expect_candidates_left(const PlannerProblem& problem, const PlannerBound& bound,
                            double optimum, std::span<const PlacedTable> best, Tally& tally) {
  const Allowed below = candidates_below(problem, bound, optimum);
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    const PlacedTable& placed = best[problem.items[i].tables.front()];
    for (std::size_t c = 0; c < below[i].size(); ++c) {
      if (below[i][c]) continue;
      const Candidate& out = problem.items[i].candidates[c];
      EXPECT_FALSE(out.type == placed.type && out.kernel == placed.kernel) << "item " << i;
      ++tally.left_out;
    }
  }
}

// Plans that are found are longer than the optimum at times: so are the goals that are tried then,
// of which none may be taken for proved.
void expect_bounds_hold(const PlannerInstance& instance, PlannerEstimator estimator,
                        PlannerObjective objective, double optimum,
                        std::span<const PlacedTable> best, Tally& tally) {
  PlannerProblem problem = planner_problem(instance.model, instance.topology, estimator);
  ASSERT_FALSE(drop_misfits(problem));
  const double latency = estimator == PlannerEstimator::kSerrate
                             ? serrate_latency(instance.model, instance.topology, {})
                             : 0;
  const PlannerBound first = planner_bound(problem, objective);
  expect_candidates_left(problem, first, optimum - latency, best, tally);
  for (const double longer : {1.02, 1.05, 1.1}) {
    const double bound = raise_bound(problem, objective, first, longer * (optimum - latency));
    EXPECT_LE(bound, (optimum - latency) * (1 + 1e-9)) << longer;
    EXPECT_GE(bound, first.objective);
    ++tally.bounds;
    tally.raised += bound > 1.001 * first.objective;
  }
}

void compare(const PlannerInstance& instance, PlannerEstimator estimator,
             PlannerObjective objective, Tally& tally) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const PlannerResult result = plan_sharding(instance.model, instance.topology,
                                             {.estimator = estimator, .objective = objective});
  ExhaustiveSearch search(instance, estimator, objective);
  if (!result.feasible()) {
    const double optimum = search.run(kInfinity);
    if (result.proved_infeasible) {
      EXPECT_EQ(optimum, kInfinity);
    }
    (optimum < kInfinity ? tally.missed : tally.impossible) += 1;
    return;
  }
  const double ours = result.objective(objective);
  const double better = search.run(ours * (1 - 1e-9));
  if (better < ours) {
    const PlanCost cost = cost_of(instance.model, instance.topology, search.placement(), estimator);
    const double judged =
        objective == PlannerObjective::kMaxRank ? cost.max_rank : cost.critical_path;
    EXPECT_NEAR(judged, better, 1e-9 * better);
  }
  const double optimum = std::min(ours, better);
  EXPECT_LE(result.bound, optimum * (1 + 1e-9));
  expect_bounds_hold(instance, estimator, objective, optimum,
                     better < ours ? search.placement() : result.tables, tally);
  ++tally.planned;
  tally.close += ours <= 1.01 * optimum;
}

void print(const Tally& t) {
  std::printf(
      "%d planned, %d of them within 1 %% of the optimum, %d impossible, %d missed; %d bounds, %d "
      "of them raised\n",
      t.planned, t.close, t.impossible, t.missed, t.bounds, t.raised);
}

// Up to four nodes of one rank, or three of two, in turn.
PlannerInstance wide_instance(RandomInstances& instances, int i) {
  return i % 20 == 0 ? instances.next(4, 4, 1) : instances.next(3, 3, 2);
}

TEST(PlannerOptimum, BoundIsHonestAndPlansAreClose) {
  constexpr int kInstances = 400;
  RandomInstances instances(1);
  Tally tally;
  for (int i = 0; i < kInstances; ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    const PlannerInstance instance =
        i % 10 == 0 ? wide_instance(instances, i) : instances.next(6, 2, 2);
    compare(instance, PlannerEstimator::kTorchRec, instances.any_objective(), tally);
  }
  EXPECT_GE(tally.planned, kInstances / 2);
  EXPECT_GE(tally.impossible, kInstances / 50);
  EXPECT_GE(tally.close, 0.95 * tally.planned);
  EXPECT_LE(tally.missed, 0.01 * tally.planned);
  EXPECT_EQ(tally.bounds, 3 * tally.planned);
  EXPECT_GE(tally.raised, tally.bounds / 10);
  EXPECT_GE(tally.left_out, tally.planned);
  print(tally);
}

TEST(PlannerOptimum, BoundIsHonestAndPlansAreCloseByOurModel) {
  constexpr int kInstances = 150;
  RandomInstances instances(2);
  Tally tally;
  for (int i = 0; i < kInstances; ++i) {
    SCOPED_TRACE(testing::Message() << "instance " << i);
    const PlannerInstance instance =
        i % 10 == 0 ? wide_instance(instances, i) : instances.next(4, 2, 2);
    compare(instance, PlannerEstimator::kSerrate, instances.any_objective(), tally);
  }
  EXPECT_GE(tally.planned, kInstances / 3);
  EXPECT_GE(tally.close, 0.95 * tally.planned);
  EXPECT_LE(tally.missed, 0.02 * tally.planned);
  EXPECT_EQ(tally.bounds, 3 * tally.planned);
  EXPECT_GE(tally.raised, tally.bounds / 10);
  EXPECT_GE(tally.left_out, tally.planned);
  print(tally);
}

}  // namespace
}  // namespace serrate
