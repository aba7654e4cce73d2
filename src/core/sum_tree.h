#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace serrate {

// Sums of a fixed shape: terms 0 .. n - 1 are the leaves of the smallest complete binary tree that
// has room for them, and a node adds up its two children, or is the left one where there are no
// leaves under the right. The bits of such a sum do not depend on where its terms come from, as
// long as whoever adds some of them up keeps to the nodes.

/// Leaves [begin, end).
struct LeafRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  friend bool operator==(const LeafRange&, const LeafRange&) = default;
};

/// Whether the nodes are the two children of one.
bool are_siblings(LeafRange left, LeafRange right, std::int64_t num_leaves);

/// The largest nodes that make up `leaves`, in order.
std::vector<LeafRange> tree_nodes(LeafRange leaves, std::int64_t num_leaves);

/// sum[into] += sum[from].
struct TreeAddition {
  std::size_t into, from;
};

/// What makes the sum of all leaves, in sum[0], of the sums of `nodes`, which are all of them in
/// order.
std::vector<TreeAddition> tree_additions(std::span<const LeafRange> nodes, std::int64_t num_leaves);

/// The sum of all `terms`, which are overwritten; 0 when there are none.
double tree_sum(std::span<double> terms);

/// The run of leaves that falls to a rank: as equal as may be, in the order of ranks.
LeafRange leaves_of_rank(std::int64_t num_leaves, int rank, int world_size);

}  // namespace serrate
