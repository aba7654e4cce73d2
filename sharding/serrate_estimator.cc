#include "sharding/serrate_estimator.h"

#include <algorithm>
#include <cmath>

#include "sharding/lookups.h"
#include "sharding/zipf.h"

namespace serrate {
namespace {

constexpr double kWordBytes = 8;   // of an id, an offset or a count
constexpr double kFloatBytes = 4;  // of weights, pooled rows, gradients and optimizer state
constexpr double kLineBytes = 64;  // the least that a random access moves
constexpr double kCacheRatio = 0.2;
constexpr double kCacheIndexBytesPerRow = 4 + 16 * kCacheRatio;
// The update sorts 8-byte keys in two passes and writes its groups: reads and writes of a word.
constexpr double kSortedWords = 8;
// Buffers are made a quarter larger than the first batch needs.
constexpr double kBufferSlack = 1.25;

class Estimator {
 public:
  Estimator(const PlannerTable& table, const ShardingOption& option, std::int64_t rows,
            const PlannerTopology& topology, std::int64_t batch_size)
      : table_(table),
        option_(option),
        topology_(topology),
        world_(topology.world_size),
        in_node_(std::min(topology.ranks_per_node, topology.world_size)),
        rows_(static_cast<double>(rows)),
        columns_(static_cast<double>(option.columns)),
        element_(static_cast<double>(table.bytes_per_element)) {
    const auto all_rows = static_cast<double>(table.num_rows);
    const double share = rows_ / all_rows;
    own_ = count_lookups(table, batch_size, share);
    all_ = own_ * world_;
    whole_ = count_lookups(table, batch_size, 1) * world_;
    distinct_ = share * expected_distinct(whole_.ids, all_rows, table.zipf_exponent);
  }

  ShardEstimate estimate() const {
    ShardEstimate e;
    if (rows_ == 0) return e;
    add_times(e);
    add_memory(e);
    return e;
  }

 private:
  bool replicated() const { return option_.type == ShardingType::kDataParallel; }
  bool hierarchical() const {
    return option_.type == ShardingType::kTableRowWise || option_.type == ShardingType::kGrid;
  }
  bool exchanges_squares() const {
    return option_.num_column_blocks > 1 && table_.optimizer == SparseOptimizer::kRowWiseAdagrad;
  }

  double memory_bandwidth() const {
    return topology_.device == PlannerDevice::kCuda ? topology_.device_bandwidth
                                                    : topology_.host_bandwidth;
  }
  // Of rows at random, where the kernel keeps them. `measured` is that of the device, or 0.
  double row_bandwidth(double measured) const {
    const double near = measured > 0 ? measured : memory_bandwidth();
    const double far = topology_.host_link_bandwidth;
    if (option_.kernel == ComputeKernel::kFusedUvm) return far;
    if (option_.kernel != ComputeKernel::kFusedUvmCaching) return near;
    const auto all = static_cast<double>(table_.num_rows);
    const double hits = share_of_draws(std::ceil(kCacheRatio * all), all, table_.zipf_exponent);
    return 1 / (hits / near + (1 - hits) / far);
  }

  // Bytes that come from all ranks alike, or go to them. What stays on the rank is copied.
  double all_to_all(double bytes) const {
    return bytes / world_ *
           (1 / memory_bandwidth() + (in_node_ - 1) / topology_.intra_node_bandwidth +
            (world_ - in_node_) / topology_.inter_node_bandwidth);
  }
  // Partial sums within the node of the rows, then one row of each bag to the other nodes.
  double hierarchical_exchange() const {
    const double summed = pooled_bytes(whole_) / in_node_;
    return pooled_bytes(all_) / in_node_ *
               (1 / memory_bandwidth() + (in_node_ - 1) / topology_.intra_node_bandwidth) +
           summed * (world_ - in_node_) / world_ / topology_.inter_node_bandwidth;
  }

  double id_bytes(const Lookups& n) const {
    return n.ids * (kWordBytes + (table_.weighted ? kFloatBytes : 0)) + n.bags * kWordBytes;
  }
  double pooled_bytes(const Lookups& n) const { return n.bags * columns_ * kFloatBytes; }
  double row_bytes() const { return std::max(columns_ * element_, kLineBytes); }
  double state_bytes() const { return state_floats(table_, columns_) * kFloatBytes; }

  void add_times(ShardEstimate& e) const {
    e.forward_compute = lookup_time(replicated() ? own_ : all_);
    e.backward_compute = update_time();
    if (replicated()) {
      // The update gathers all ranks' ids and gradients.
      e.backward_comms = all_to_all(id_bytes(all_) + pooled_bytes(all_));
      return;
    }
    e.input_dist = all_to_all(id_bytes(all_));
    e.forward_comms = hierarchical() ? hierarchical_exchange() : all_to_all(pooled_bytes(all_));
    e.backward_comms = e.forward_comms;
    if (exchanges_squares()) {
      e.backward_comms += all_to_all(distinct_ * option_.num_column_blocks * kFloatBytes);
    }
  }
  // A row that occurs again is in a cache.
  double lookup_time(const Lookups& read) const {
    const double first = std::min(distinct_, read.ids);
    return first * row_bytes() / row_bandwidth(topology_.lookup_bandwidth) +
           ((read.ids - first) * columns_ * element_ + id_bytes(read) + pooled_bytes(read)) /
               memory_bandwidth();
  }
  // The gradient of its bag is read for every id; each row that occurs is read and written once,
  // with its state. Before, the ids are sorted by row.
  double update_time() const {
    const double state = state_bytes() > 0 ? std::max(state_bytes(), kLineBytes) : 0;
    return (2 * distinct_ * (row_bytes() + state) + all_.ids * columns_ * kFloatBytes) /
               row_bandwidth(topology_.update_bandwidth) +
           all_.ids * kSortedWords * kWordBytes / memory_bandwidth();
  }

  void add_memory(ShardEstimate& e) const {
    const auto whole = [](double bytes) { return static_cast<std::int64_t>(std::ceil(bytes)); };
    std::int64_t& near = topology_.device == PlannerDevice::kCuda ? e.device_bytes : e.host_bytes;
    const double rows_and_state = rows_ * (columns_ * element_ + state_bytes());
    switch (option_.kernel) {
      case ComputeKernel::kDense:
      case ComputeKernel::kFused:
        near += whole(rows_and_state);
        break;
      case ComputeKernel::kFusedUvm:
        e.host_bytes += whole(rows_and_state);
        break;
      case ComputeKernel::kFusedUvmCaching:
        e.host_bytes += whole(rows_and_state);
        near += whole(rows_and_state * kCacheRatio + rows_ * kCacheIndexBytesPerRow);
        break;
    }
    near += whole(kBufferSlack * (id_bytes(all_) + pooled_bytes(all_)));
  }

  const PlannerTable& table_;
  const ShardingOption& option_;
  const PlannerTopology& topology_;
  double world_, in_node_;
  double rows_, columns_, element_;
  Lookups own_;          // in the shard, by one rank
  Lookups all_;          // in the shard, by all ranks
  Lookups whole_;        // in the table, by all ranks
  double distinct_ = 0;  // rows of the shard that all ranks look up
};

}  // namespace

ShardEstimate serrate_estimate(const PlannerTable& table, const ShardingOption& option,
                               std::int64_t rows, const PlannerTopology& topology,
                               std::int64_t batch_size) {
  return Estimator(table, option, rows, topology, batch_size).estimate();
}

}  // namespace serrate
