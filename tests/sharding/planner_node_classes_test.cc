#include "sharding/planner/node_classes.h"

#include <gtest/gtest.h>

namespace serrate {
namespace {

// Four nodes of eight ranks. A long table takes 10 ms of one rank, or 12 of all ranks of a node;
// four wide ones take 4 ms of all ranks of a node each. Spread evenly over the nodes, the wide ones
// leave the slowest rank at 14 ms; all in three nodes, at 10, as two and two of them take 8.
TEST(PlannerNodeClasses, WhatIsOnNodesMakesRoomForALongShard) {
  constexpr int kRanksPerNode = 8;
  PlannerProblem problem{.world_size = 32, .ranks_per_node = kRanksPerNode};
  Phases phases;
  phases.num_phases = 1;
  const Candidate on_rank{.scope = BlockScope::kRank};
  const Candidate on_node{.scope = BlockScope::kNode, .ranks_per_block = kRanksPerNode};
  const auto choice = [](int candidate, double time, double work) {
    return Phases::Choice{
        .candidate = candidate, .time = {time}, .longest = time, .total = time, .work = work};
  };
  problem.items.push_back({.candidates = {on_rank, on_node}});
  phases.items.push_back({choice(0, 10, 10), choice(1, 12, 96)});
  for (int i = 0; i < 4; ++i) {
    problem.items.push_back({.candidates = {on_node}});
    phases.items.push_back({choice(0, 4, 32)});
  }
  // The mean over ranks is 4.3 ms.
  const auto chosen = choose_by_class(
      problem, phases, {}, {.first_nodes = 1, .longest_in_first = 2.4, .longest_in_others = 0.5});
  ASSERT_EQ(chosen.size(), 5U);
  EXPECT_EQ(chosen[0].choice, 0);
  EXPECT_EQ(chosen[0].node, -1);
  for (int i = 1; i < 5; ++i) EXPECT_GE(chosen[i].node, 1) << i;
  // Where no shard is long, every node has one.
  phases.items[0] = {choice(0, 1, 1)};
  const auto even = choose_by_class(
      problem, phases, {}, {.first_nodes = 1, .longest_in_first = 0.5, .longest_in_others = 0.5});
  std::vector<int> on(4);
  for (int i = 1; i < 5; ++i) {
    ASSERT_GE(even[i].node, 0);
    ++on[even[i].node];
  }
  EXPECT_EQ(on, (std::vector<int>{1, 1, 1, 1}));
}

}  // namespace
}  // namespace serrate
