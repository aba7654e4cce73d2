#include "comm/tree_sum.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "serrate/error.h"

namespace serrate {
namespace {

// sum += term; elements, so that threads change no bits.
void add(const float* term, float* sum, std::int64_t size, const Stream& stream) {
#pragma omp parallel for simd num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t i = 0; i < size; ++i) sum[i] += term[i];
}

}  // namespace

TreeSum::TreeSum(std::int64_t num_leaves, Communicator& communicator)
    : num_leaves_(num_leaves),
      communicator_(communicator),
      leaves_(leaves_of_rank(num_leaves, communicator.rank(), communicator.size())) {
  if (num_leaves < communicator.size()) {
    throw usage_error(
        fmt::format("{} ranks cannot share the {} terms of a sum (each needs one) use at most {} "
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

void TreeSum::add_leaf(std::span<float> values, const Stream& stream) {
  check(stream.device() == Device::cpu(), "TreeSum works on CPU streams");
  check(next_leaf_ < leaves_.size(), "a rank adds no more leaves than it has");
  const std::int64_t leaf = leaves_.begin + next_leaf_++;
  LeafRange node{leaf, leaf + 1};
  while (!open_.empty() && are_siblings(open_.back(), node, num_leaves_)) {
    const std::span<const float> left = waiting_[open_.size() - 1].span();
    check(left.size() == values.size(), "the leaves of a sum are of one size");
    add(left.data(), values.data(), std::ssize(values), stream);
    node.begin = open_.back().begin;
    open_.pop_back();
  }
  open_.push_back(node);
  if (next_leaf_ == leaves_.size()) return;
  if (waiting_.size() < open_.size()) waiting_.resize(open_.size());
  copy<float>(values, waiting_[open_.size() - 1].resize_discard(std::ssize(values), stream),
              stream);
}

/// The sum of this rank's part of the values; valid until the next call.
std::span<const float> TreeSum::reduce(std::string_view operation, std::span<float> values,
                                       std::span<const std::int64_t> counts, const Stream& stream) {
  check(next_leaf_ == leaves_.size(), "a rank adds all of its leaves before they are summed");
  const std::size_t num_nodes = open_.size();
  std::vector<std::int64_t> send_counts;
  for (const std::int64_t count : counts) {
    send_counts.push_back(count * static_cast<std::int64_t>(num_nodes));
  }
  std::span<const float> send = values;
  if (num_nodes > 1) {  // part after part, each of all nodes
    std::span<float> to =
        sent_.resize_discard(static_cast<std::int64_t>(num_nodes * values.size()), stream);
    send = to;
    std::size_t begin = 0;
    for (const std::int64_t count : counts) {
      for (std::size_t node = 0; node < num_nodes; ++node) {
        const std::span<const float> of_node =
            node + 1 < num_nodes ? std::as_const(waiting_[node]).span() : values;
        copy<float>(of_node.subspan(begin, count), to.first(count), stream);
        to = to.subspan(count);
      }
      begin += static_cast<std::size_t>(count);
    }
  }
  communicator_.all_to_all<float>(operation, send, send_counts, 1, received_, received_counts_,
                                  stream);
  next_leaf_ = 0;
  open_.clear();

  const std::int64_t own = counts[communicator_.rank()];
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    check(received_counts_[rank] == own * node_counts_[rank],
          "the ranks of a sum have terms of one size");
  }
  // All nodes of a block of values, which stays in the cache.
  constexpr std::int64_t kBlock = 4096;
  float* const sums = received_.data();
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
  for (std::int64_t begin = 0; begin < own; begin += kBlock) {
    const std::int64_t end = std::min(own, begin + kBlock);
    for (const auto [into, from] : additions_) {
      float* const sum = sums + static_cast<std::int64_t>(into) * own;
      const float* const term = sums + static_cast<std::int64_t>(from) * own;
      for (std::int64_t i = begin; i < end; ++i) sum[i] += term[i];
    }
  }
  return received_.span().first(own);
}

void TreeSum::all_reduce(std::string_view operation, std::span<float> values,
                         const Stream& stream) {
  const int world_size = communicator_.size();
  if (world_size == 1) {  // the one node is the sum
    check(next_leaf_ == leaves_.size(), "a rank adds all of its leaves before they are summed");
    next_leaf_ = 0;
    open_.clear();
    return;
  }
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < world_size; ++rank) {
    counts.push_back(leaves_of_rank(std::ssize(values), rank, world_size).size());
  }
  communicator_.all_gather<float>(operation, reduce(operation, values, counts, stream), 1,
                                  gathered_, received_counts_, stream);
  copy<float>(gathered_.span(), values, stream);
}

void TreeSum::reduce_scatter(std::string_view operation, std::span<float> values,
                             std::span<const std::int64_t> counts, std::span<float> part,
                             const Stream& stream) {
  check(std::ssize(counts) == communicator_.size() &&
            std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) == std::ssize(values) &&
            counts[communicator_.rank()] == std::ssize(part),
        "reduce_scatter needs as many values as its counts say");
  copy<float>(reduce(operation, values, counts, stream), part, stream);
}

std::int64_t TreeSum::bytes() const {
  std::int64_t bytes = sent_.bytes() + received_.bytes() + gathered_.bytes();
  for (const Buffer<float>& buffer : waiting_) bytes += buffer.bytes();
  return bytes;
}

}  // namespace serrate
