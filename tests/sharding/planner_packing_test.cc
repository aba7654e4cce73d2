#include "sharding/planner/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "sharding/planner/bound.h"
#include "sharding/planner/moves.h"
#include "sharding/planner/relaxation.h"

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

Candidate on_node(double ms, int ranks) {
  Candidate c{.type = ShardingType::kTableRowWise,
              .scope = BlockScope::kNode,
              .ranks_per_block = ranks,
              .full_ranks = ranks};
  c.time = {.forward_compute = ms};
  c.work = {.forward_compute = ms * ranks};
  c.memory = {{ranks, 0, 0}};
  return c;
}

Candidate on_rank(double ms) {
  Candidate c{};
  c.time = c.work = {.forward_compute = ms};
  c.memory = {{1, 0, 0}};
  return c;
}

// Four items on two ranks, each with 2 ms of compute and 4 of exchange or with 4 and 1: 10 ms in
// the mean, all of the second. With at most 6 ms of compute half are of the first: 11 ms, which
// only a price of compute above 1 shows. The prices that the box begins with were stopped at 1.
TEST(PlannerBound, PricesPassOneWhereTheyWereStopped) {
  const auto candidate = [](double compute, double exchange) {
    Candidate c = on_rank(compute);
    c.time.forward_comms = c.work.forward_comms = exchange;
    return c;
  };
  PlannerProblem problem{
      .world_size = 2, .ranks_per_node = 2, .device_bytes = {1, 1}, .host_bytes = {1, 1}};
  problem.items.assign(4, {.candidates = {candidate(2, 4), candidate(4, 1)}});
  const Relaxation relaxation(problem, PlannerObjective::kCriticalPath,
                              Relaxation::Nodes::kTogether);
  Box box = relaxation.whole();
  for (double& price : box.prices) price /= 2;
  relaxation.solve(box, kUnbounded, 100, 0);
  EXPECT_NEAR(box.value, 10, 1e-6);
  box.high[0] = 6;
  relaxation.solve(box, 12, 200, 0);
  EXPECT_GE(box.value, 10.9);
  EXPECT_LE(box.value, 11 * (1 + 1e-9));
}

// Against all ways to divide them, each made by moves. The last block is confined to its rank.
TEST(PlannerState, DividesWhatIsOnTwoRanksInTheBestWay) {
  constexpr int kItems = 6, kMovable = 5;
  std::mt19937_64 engine(3);
  const auto ms = [&] { return 1 + static_cast<double>(engine() % 1000) / 100; };
  PlannerProblem problem{
      .world_size = 2, .ranks_per_node = 2, .device_bytes = {30, 30}, .host_bytes = {0, 0}};
  int divided = 0;
  for (int round = 0; round < 40; ++round) {
    problem.items.clear();
    for (int i = 0; i < kItems; ++i) {
      Candidate c = on_rank(ms());
      c.time.forward_comms = c.work.forward_comms = ms();
      c.memory.front().device_bytes = 1 + static_cast<std::int64_t>(engine() % 15);
      problem.items.push_back({.candidates = {c}});
    }
    problem.items.back().ranks = {0};
    const Phases phases = make_phases(problem, PlannerObjective::kCriticalPath, {});
    SearchState state(problem, phases);
    std::vector<SearchState::OnRank> blocks;
    for (int i = 0; i < kItems; ++i) {
      const int rank = i < kMovable ? static_cast<int>(engine() % 2) : 0;
      state.place(i, 0, std::vector{rank});
      if (state.may_move(i, rank, 1 - rank)) blocks.push_back({i, 0});
    }
    ASSERT_EQ(std::ssize(blocks), kMovable);
    state.refresh_energy(kSearchSharpness);
    const double before = state.total_energy();
    double least = before;
    SearchState tried = state;
    for (int way = 0; way < 1 << kMovable; ++way) {
      for (int i = 0; i < kMovable; ++i) tried.move_block(i, 0, way >> i & 1);
      least = std::min(least, tried.total_energy());
    }
    const double least_gain = 1e-6 * before;
    const bool gains = least < before - least_gain;
    divided += gains;
    EXPECT_EQ(state.divide_anew(0, 1, blocks, least_gain), gains);
    EXPECT_NEAR(state.total_energy(), gains ? least : before, 1e-9 * before);
    EXPECT_EQ(state.blocks(kMovable).front(), 0);
    EXPECT_FALSE(state.divide_anew(1, 0, blocks, least_gain));
  }
  EXPECT_GT(divided, 20);
}

// Two nodes of two ranks. Three shards of 5 ms are on a rank each, so that one node has two of
// them; four of 1.5 ms are on both ranks of a node. Two there beside the two make 8 ms; with fewer,
// the other node has three and the third shard: 9.5 ms. In the mean over all ranks, which takes the
// node with one shard to have an empty rank for whatever is too much, 7.5 ms would do.
PlannerProblem shared_nodes() {
  PlannerProblem problem{.world_size = 4,
                         .ranks_per_node = 2,
                         .device_bytes = {1, 1, 1, 1},
                         .host_bytes = {1, 1, 1, 1}};
  for (int i = 0; i < 3; ++i) problem.items.push_back({.candidates = {on_rank(5)}});
  for (int i = 0; i < 4; ++i) problem.items.push_back({.candidates = {on_node(1.5, 2)}});
  return problem;
}

TEST(PlannerBound, SeesThatRanksOfANodeShare) {
  const PlannerProblem problem = shared_nodes();
  const PlannerBound first = planner_bound(problem, PlannerObjective::kMaxRank);
  EXPECT_NEAR(first.objective, 6.75, 0.01);  // the mean: (3 * 5 + 4 * 2 * 1.5) / 4
  for (const double known : {8.1, 8.4, 9.0}) {
    const double bound = raise_bound(problem, PlannerObjective::kMaxRank, first, known);
    EXPECT_GE(bound, 0.98 * 8) << known;
    EXPECT_LE(bound, 8 * (1 + 1e-9)) << known;
  }
}

// Some of what the relaxation chooses has two shards of a rank on a node with two of the node's,
// from which a start comes to the 8 ms without moves. Other choices do not: they are kept to as
// well.
TEST(PlannerStarts, KeepToTheNodesOfTheRelaxation) {
  const PlannerProblem problem = shared_nodes();
  const PlannerObjective objective = PlannerObjective::kMaxRank;
  const PlannerBound bound = planner_bound(problem, objective);
  double least = 9;
  bool uneven = false;
  for (const auto& choices : relaxed_choices(problem, objective, 9.0, 4, 30)) {
    SearchMoves moves(problem, bound, {.objective = objective}, {},
                      SearchMoves::Clock::time_point::max());
    moves.start(choices);
    ASSERT_TRUE(moves.has_placement());
    const SearchResult start = moves.result();
    for (std::size_t i = 0; i < choices.size(); ++i) {
      ASSERT_EQ(choices[i].nodes.size(), 1);
      const bool on_rank = problem.items[i].candidates[0].scope == BlockScope::kRank;
      EXPECT_EQ(start.items[i].blocks[0] / (on_rank ? 2 : 1), choices[i].nodes[0]) << i;
    }
    least = std::min(least, start.objective);
    uneven |= start.objective > 8.1;
  }
  EXPECT_NEAR(least, 8, 1e-9);
  EXPECT_TRUE(uneven);
}

// A table of two rows, 4 MB each, without lookups: on the devices or on the hosts of the first two
// ranks. Another one is on all devices with 6 MB, or on one rank for ten times as long. In the mean
// of a node's ranks, which are taken to have as few rows as the last, the first table takes nothing
// either way; but beside the 6 MB it fits on the hosts alone.
TEST(PlannerBound, TellsMemoriesApartOfWhichTheLastRanksHaveNone) {
  constexpr std::int64_t kMegabyte = 1'000'000;
  Candidate on_devices{.type = ShardingType::kRowWise,
                       .scope = BlockScope::kAll,
                       .ranks_per_block = 4,
                       .full_ranks = 4,
                       .memory = {{2, 4 * kMegabyte, 0}, {4, 0, 0}}};
  Candidate on_hosts = on_devices;
  on_hosts.kernel = ComputeKernel::kFusedUvm;
  on_hosts.memory = {{2, 0, 4 * kMegabyte}, {4, 0, 0}};
  Candidate replicated{.type = ShardingType::kDataParallel,
                       .kernel = ComputeKernel::kDense,
                       .scope = BlockScope::kAll,
                       .ranks_per_block = 4,
                       .full_ranks = 4,
                       .time = {.forward_compute = 1},
                       .work = {.forward_compute = 4},
                       .memory = {{4, 6 * kMegabyte, 0}}};
  const PlannerProblem problem{
      .world_size = 4,
      .ranks_per_node = 2,
      .device_bytes = std::vector<std::int64_t>(4, 8 * kMegabyte),
      .host_bytes = std::vector<std::int64_t>(4, 8 * kMegabyte),
      .items = {{.candidates = {on_devices, on_hosts}}, {.candidates = {replicated, on_rank(10)}}}};
  const PlannerBound first = planner_bound(problem, PlannerObjective::kMaxRank);
  EXPECT_LE(raise_bound(problem, PlannerObjective::kMaxRank, first, 1.02), 1 + 1e-9);
}

// A table without lookups has a fourth on every rank, or two blocks in two halves, which take the
// same in the mean over all ranks but may be on one node: there alone is room for the other
// table on the other node.
TEST(PlannerBound, TellsBlocksOfNodesFromThoseOnAllRanks) {
  Candidate on_all{.type = ShardingType::kRowWise,
                   .scope = BlockScope::kAll,
                   .ranks_per_block = 4,
                   .full_ranks = 4,
                   .memory = {{4, 3, 0}}};
  Candidate on_nodes{.type = ShardingType::kGrid,
                     .scope = BlockScope::kNode,
                     .num_blocks = 2,
                     .ranks_per_block = 2,
                     .full_ranks = 2,
                     .memory = {{2, 3, 0}}};
  Candidate large = on_node(1, 2);
  large.memory = {{2, 6, 0}};
  const PlannerProblem problem{
      .world_size = 4,
      .ranks_per_node = 2,
      .device_bytes = {8, 8, 8, 8},
      .host_bytes = {1, 1, 1, 1},
      .items = {{.candidates = {on_all, on_nodes}}, {.candidates = {large, on_rank(10)}}}};
  const PlannerBound first = planner_bound(problem, PlannerObjective::kCriticalPath);
  EXPECT_LE(raise_bound(problem, PlannerObjective::kCriticalPath, first, 1.02), 1 + 1e-9);
}

}  // namespace
}  // namespace serrate
