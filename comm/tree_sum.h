#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/communicator.h"
#include "src/core/sum_tree.h"

namespace serrate {

/// A sum over leaves that the ranks of a communicator compute, each its run of them one after the
/// other and in one buffer. Keeps the sums of nodes whose siblings are still to come: at most
/// 1 + log2(num_leaves) times the size of the terms. The values are in memory of the streams'
/// device, where they are added.
class TreeSum {
 public:
  /// Error (usage) when there are fewer leaves than ranks. The communicator has to outlive it.
  TreeSum(std::int64_t num_leaves, Communicator& communicator);

  /// The leaves of this rank.
  LeafRange leaves() const { return leaves_; }
  /// Adds the rank's next leaf. After the last one, `values` belongs to the sum until a call below
  /// has made it; before that it is the caller's again, with other values.
  void add_leaf(DeviceSpan<float> values, const Stream& stream);

  /// values = the sum of all leaves, on every rank. Collective, as the next.
  void all_reduce(std::string_view operation, DeviceSpan<float> values, const Stream& stream);
  /// Part rank() of the sum, whose values come in counts.size() consecutive parts.
  void reduce_scatter(std::string_view operation, DeviceSpan<float> values,
                      std::span<const std::int64_t> counts, DeviceSpan<float> part,
                      const Stream& stream);

  /// Bytes of memory held.
  std::int64_t bytes() const;

 private:
  DeviceSpan<const float> reduce(std::string_view operation, DeviceSpan<float> values,
                                 std::span<const std::int64_t> counts, const Stream& stream);

  std::int64_t num_leaves_;
  Communicator& communicator_;
  LeafRange leaves_;
  std::vector<LeafRange> all_nodes_;       // of all ranks
  std::vector<std::int64_t> node_counts_;  // [ranks]
  std::vector<TreeAddition> additions_;    // over all_nodes_
  std::int64_t next_leaf_ = 0;             // leaves so far
  std::vector<LeafRange> open_;            // nodes so far
  std::vector<Buffer<float>> waiting_;     // their sums; the last may be in the caller's buffer
  Buffer<float> sent_, received_;          // rows of nodes' parts
  std::vector<std::int64_t> counts_;       // [ranks], of the values of an all_reduce
};

}  // namespace serrate
