#include "src/core/sum_tree.h"

#include <gtest/gtest.h>

namespace serrate {
namespace {

using Nodes = std::vector<LeafRange>;

TEST(SumTreeTest, NodesAreAlignedRunsOfPowersOfTwo) {
  EXPECT_EQ(tree_nodes({0, 16}, 16), (Nodes{{0, 16}}));
  EXPECT_EQ(tree_nodes({5, 10}, 16), (Nodes{{5, 6}, {6, 8}, {8, 10}}));
  EXPECT_EQ(tree_nodes({3, 4}, 16), (Nodes{{3, 4}}));
  EXPECT_EQ(tree_nodes({4, 4}, 16), Nodes{});
}

TEST(SumTreeTest, ANodeMayEndWhereTheLeavesDo) {
  // With 13 leaves, {12} has no sibling: it stands for {12 .. 15}, the sibling of {8 .. 11}.
  EXPECT_EQ(tree_nodes({8, 13}, 13), (Nodes{{8, 13}}));
  EXPECT_EQ(tree_nodes({9, 13}, 13), (Nodes{{9, 10}, {10, 12}, {12, 13}}));
  EXPECT_EQ(tree_nodes({0, 13}, 13), (Nodes{{0, 13}}));
}

TEST(SumTreeTest, AddsLevelByLevel) {
  // 1 is lost beside 1e16, so ((1e16 + 1) + (1 + 1)) + (-1e16) = 2, and in order it would be 0.
  std::vector<double> terms{1e16, 1, 1, 1, -1e16};
  EXPECT_EQ(tree_sum(terms), 2);
  std::vector<double> none, one{3};
  EXPECT_EQ(tree_sum(none), 0);
  EXPECT_EQ(tree_sum(one), 3);
}

TEST(SumTreeTest, RanksShareLeavesInOrder) {
  EXPECT_EQ(leaves_of_rank(16, 0, 3), (LeafRange{0, 5}));
  EXPECT_EQ(leaves_of_rank(16, 1, 3), (LeafRange{5, 10}));
  EXPECT_EQ(leaves_of_rank(16, 2, 3), (LeafRange{10, 16}));
}

}  // namespace
}  // namespace serrate
