#include "comm/tree_sum.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "serrate/error.h"
#include "src/core/ordered_sum.h"

namespace serrate {
TreeSum::TreeSum(std::int64_t num_leaves, Communicator& communicator)
    : num_leaves_(num_leaves),
      communicator_(communicator),
      leaves_(leaves_of_rank(num_leaves, communicator.rank(), communicator.size())) {
  if (num_leaves < communicator.size()) {
    throw usage_error(
        fmt::format("{} ranks cannot share the {} terms of a sum (each needs one): use at most {} "
                    "ranks",
                    communicator.size(), num_leaves, num_leaves));
  }
  for (int rank = 0; rank < communicator.size(); ++rank) {
    const auto nodes =
        tree_nodes(leaves_of_rank(num_leaves, rank, communicator.size()), num_leaves);
    node_counts_.push_back(std::ssize(nodes));
    all_nodes_.insert(all_nodes_.end(), nodes.begin(), nodes.end());
  }
  additions_ = tree_additions(all_nodes_, num_leaves);
}

void TreeSum::add_leaf(DeviceSpan<float> values, const Stream& stream) {
  check(next_leaf_ < leaves_.size(), "a rank adds no more leaves than it has");
  const auto size = static_cast<std::int64_t>(values.size());
  const std::int64_t leaf = leaves_.begin + next_leaf_++;
  LeafRange node{leaf, leaf + 1};
  while (!open_.empty() && are_siblings(open_.back(), node, num_leaves_)) {
    const DeviceSpan<const float> left = waiting_[open_.size() - 1].span();
    check(left.size() == values.size(), "the leaves of a sum are of one size");
    const Addition<float> addition{values.device_data(), left.device_data()};
    add_in_order<float>({&addition, 1}, size, stream);
    node.begin = open_.back().begin;
    open_.pop_back();
  }
  open_.push_back(node);
  if (next_leaf_ == leaves_.size()) return;
  if (waiting_.size() < open_.size()) waiting_.resize(open_.size());
  copy<float>(values, waiting_[open_.size() - 1].resize_discard(size, stream), stream);
}

/// The sum of this rank's part of the values; valid until the next call.
DeviceSpan<const float> TreeSum::reduce(std::string_view operation, DeviceSpan<float> values,
                                        std::span<const std::int64_t> counts,
                                        const Stream& stream) {
  check(next_leaf_ == leaves_.size(), "a rank adds all of its leaves before they are summed");
  const auto num_nodes = static_cast<std::int64_t>(open_.size());
  std::vector<std::int64_t> send_counts;
  for (const std::int64_t count : counts) send_counts.push_back(count * num_nodes);
  DeviceSpan<const float> send = values;
  if (num_nodes > 1) {  // part after part, each of all nodes
    DeviceSpan<float> to =
        sent_.resize_discard(num_nodes * static_cast<std::int64_t>(values.size()), stream);
    send = to;
    std::size_t begin = 0;
    for (const std::int64_t count : counts) {
      for (std::int64_t node = 0; node < num_nodes; ++node) {
        const DeviceSpan<const float> of_node =
            node + 1 < num_nodes ? std::as_const(waiting_[node]).span() : values;
        copy<float>(of_node.subspan(begin, count), to.first(count), stream);
        to = to.subspan(count);
      }
      begin += static_cast<std::size_t>(count);
    }
  }
  const std::int64_t own = counts[communicator_.rank()];
  std::vector<std::int64_t> receive_counts;
  for (const std::int64_t nodes : node_counts_) receive_counts.push_back(nodes * own);
  const DeviceSpan<float> sums = received_.resize_discard(std::ssize(all_nodes_) * own, stream);
  communicator_.all_to_all<float>(operation, {send, send_counts}, {sums, receive_counts}, 1,
                                  stream);
  next_leaf_ = 0;
  open_.clear();

  const auto sum_of = [&](std::size_t node) {
    return sums.device_data() + static_cast<std::int64_t>(node) * own;
  };
  std::vector<Addition<float>> additions;
  for (const auto [into, term] : additions_) additions.push_back({sum_of(into), sum_of(term)});
  add_in_order<float>(additions, own, stream);
  return sums.first(own);
}

void TreeSum::all_reduce(std::string_view operation, DeviceSpan<float> values,
                         const Stream& stream) {
  const int world_size = communicator_.size();
  if (world_size == 1) {  // the one node is the sum
    check(next_leaf_ == leaves_.size(), "a rank adds all of its leaves before they are summed");
    next_leaf_ = 0;
    open_.clear();
    return;
  }
  counts_.clear();
  for (int rank = 0; rank < world_size; ++rank) {
    counts_.push_back(
        leaves_of_rank(static_cast<std::int64_t>(values.size()), rank, world_size).size());
  }
  const DeviceSpan<const float> part = reduce(operation, values, counts_, stream);
  communicator_.all_gather<float>(operation, part, {values, counts_}, 1, stream);
}

void TreeSum::reduce_scatter(std::string_view operation, DeviceSpan<float> values,
                             std::span<const std::int64_t> counts, DeviceSpan<float> part,
                             const Stream& stream) {
  check(std::ssize(counts) == communicator_.size() &&
            std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) ==
                static_cast<std::int64_t>(values.size()) &&
            counts[communicator_.rank()] == static_cast<std::int64_t>(part.size()),
        "reduce_scatter needs as many values as its counts say");
  copy<float>(reduce(operation, values, counts, stream), part, stream);
}

std::int64_t TreeSum::bytes() const {
  std::int64_t bytes = sent_.bytes() + received_.bytes();
  for (const Buffer<float>& buffer : waiting_) bytes += buffer.bytes();
  return bytes;
}

}  // namespace serrate
