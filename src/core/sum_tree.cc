#include "src/core/sum_tree.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "serrate/error.h"

namespace serrate {

bool are_siblings(LeafRange left, LeafRange right, std::int64_t num_leaves) {
  const std::int64_t size =
      2 * static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(left.size())));
  return left.end == right.begin && left.size() == size / 2 && left.begin % size == 0 &&
         right.end == std::min(left.begin + size, num_leaves);
}

std::vector<LeafRange> tree_nodes(LeafRange leaves, std::int64_t num_leaves) {
  std::vector<LeafRange> nodes;
  for (std::int64_t leaf = leaves.begin; leaf < leaves.end; ++leaf) {
    nodes.push_back({leaf, leaf + 1});
    while (nodes.size() > 1 && are_siblings(nodes.end()[-2], nodes.end()[-1], num_leaves)) {
      nodes.end()[-2].end = nodes.end()[-1].end;
      nodes.pop_back();
    }
  }
  return nodes;
}

std::vector<TreeAddition> tree_additions(std::span<const LeafRange> nodes,
                                         std::int64_t num_leaves) {
  std::vector<TreeAddition> additions;
  std::vector<std::pair<LeafRange, std::size_t>> open;  // node, where its sum is
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    open.emplace_back(nodes[i], i);
    while (open.size() > 1 &&
           are_siblings(open.end()[-2].first, open.end()[-1].first, num_leaves)) {
      additions.push_back({open.end()[-2].second, open.end()[-1].second});
      open.end()[-2].first.end = open.end()[-1].first.end;
      open.pop_back();
    }
  }
  check(open.size() == 1 && open.front().first == LeafRange{0, num_leaves},
        "a tree's nodes have to make up all of its leaves");
  return additions;
}

double tree_sum(std::span<double> terms) {
  if (terms.empty()) return 0;
  const std::int64_t n = std::ssize(terms);
  std::vector<LeafRange> leaves;
  for (std::int64_t i = 0; i < n; ++i) leaves.push_back({i, i + 1});
  for (const auto [into, from] : tree_additions(leaves, n)) terms[into] += terms[from];
  return terms.front();
}

LeafRange leaves_of_rank(std::int64_t num_leaves, int rank, int world_size) {
  return {num_leaves * rank / world_size, num_leaves * (rank + 1) / world_size};
}

}  // namespace serrate
