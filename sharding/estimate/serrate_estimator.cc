#include "sharding/estimate/serrate_estimator.h"

#include <algorithm>
#include <cmath>

#include "sharding/estimate/lookups.h"
#include "sharding/estimate/optimizer_state.h"
#include "sharding/estimate/zipf.h"

namespace serrate {
namespace {

constexpr double kIdBytes = 8;     // of an id, an offset or a count
constexpr double kFloatBytes = 4;  // of weights, pooled rows, gradients and optimizer state
constexpr double kLineBytes = 64;  // the least that a random access moves
constexpr double kCachedShare = 0.2;
constexpr double kCacheIndexBytesPerRow = 4 + 16 * kCachedShare;
// What work on single ids takes, as bytes at the memory's bandwidth (measured at 42 GB/s, 9 and 4.6
// ns an id): the update sorts ids and groups them by row; parting them by row block scatters them.
constexpr double kGroupedBytes = 384;
constexpr double kPartedBytes = 192;
// Buffers are made a quarter larger than the first batch needs.
constexpr double kBufferSlack = 1.25;

class SerrateEstimator {
 public:
  SerrateEstimator(const PlannerTable& table, const ShardingOption& option,
                   const PlannerTopology& topology, std::int64_t batch_size)
      : table_(table),
        option_(option),
        topology_(topology),
        batch_size_(batch_size),
        world_(topology.world_size),
        in_node_(std::min(topology.ranks_per_node, topology.world_size)),
        columns_(static_cast<double>(option.columns)),
        element_(static_cast<double>(table.bytes_per_element)),
        whole_(count_lookups(table, batch_size, 1)) {}

  // What a shard costs its rank.
  ShardEstimate shard(std::int64_t num_rows) const {
    const auto rows = static_cast<double>(num_rows);
    const double share = rows / static_cast<double>(table_.num_rows);
    const Lookups own = count_lookups(table_, batch_size_, share);
    const Lookups all = own * world_;
    ShardEstimate e;
    if (num_rows > 0) {
      const double distinct = share * distinct_rows();
      e.forward_compute = lookup_time(replicated() ? own : all, distinct);
      e.backward_compute = update_time(all, distinct);
      if (squares_are_exchanged()) {
        e.backward_comms += all_to_all(all.ids * option_.num_column_blocks * kFloatBytes);
      }
      add_memory(rows, all, e);
    }
    if (replicated()) {
      // The update gathers all ranks' ids and gradients.
      e.backward_comms += all_to_all(id_bytes(all) + pooled_bytes(all));
    } else if (goes_through_nodes(option_.type, topology_)) {
      add_exchange_through_nodes(all, e);
    } else {
      e.input_dist += all_to_all(id_bytes(all));
      e.forward_comms += all_to_all(pooled_bytes(all));
      e.backward_comms += all_to_all(pooled_bytes(all));
    }
    return e;
  }

  // What a rank's own bags cost: ids are parted by row block and packed for each column block, rows
  // are added to the outputs of their bags, and the other way round for the gradients.
  ShardEstimate everywhere() const {
    const Lookups asked = asked_for(num_parts());
    const auto dim = static_cast<double>(table_.dim);
    const double outputs = count_bags(table_, batch_size_) * dim * kFloatBytes;
    const double rows = asked.bags * dim * kFloatBytes;
    ShardEstimate e;
    const double parted =
        2 * id_bytes(asked) + asked.bags * kIdBytes + parting_bytes(asked, num_parts());
    const double packed = 2 * id_bytes(asked) * option_.num_column_blocks;
    e.input_dist = (parted + packed) / memory_bandwidth();
    e.forward_comms = (outputs + 3 * rows) / memory_bandwidth();
    e.backward_comms = 2 * rows / memory_bandwidth();
    return e;
  }

 private:
  bool replicated() const { return option_.type == ShardingType::kDataParallel; }
  bool squares_are_exchanged() const {
    return option_.num_column_blocks > 1 && table_.optimizer == SparseOptimizer::kRowWiseAdagrad;
  }

  double memory_bandwidth() const {
    return topology_.device == PlannerDevice::kCuda ? topology_.device_bandwidth
                                                    : topology_.host_bandwidth;
  }
  // Bandwidth of rows at random, where the kernel keeps them. `measured` is the device's, or 0.
  double row_bandwidth(double measured) const {
    const double near = measured > 0 ? measured : memory_bandwidth();
    const double far = topology_.host_link_bandwidth;
    if (option_.kernel == ComputeKernel::kFusedUvm) return far;
    if (option_.kernel != ComputeKernel::kFusedUvmCaching) return near;
    const auto all = static_cast<double>(table_.num_rows);
    const double hits = share_of_draws(std::ceil(kCachedShare * all), all, table_.zipf_exponent);
    return 1 / (hits / near + (1 - hits) / far);
  }

  // Bytes that come from all ranks alike, or go to them. What stays on the rank is copied.
  double all_to_all(double bytes) const {
    return bytes / world_ *
           (1 / memory_bandwidth() + (in_node_ - 1) / topology_.intra_node_bandwidth +
            (world_ - in_node_) / topology_.inter_node_bandwidth);
  }
  double within_node(double bytes) const {
    return bytes / in_node_ *
           (1 / memory_bandwidth() + (in_node_ - 1) / topology_.intra_node_bandwidth);
  }
  double across_nodes(double bytes) const {
    const double nodes = world_ / in_node_;
    return bytes / nodes * (1 / memory_bandwidth() + (nodes - 1) / topology_.inter_node_bandwidth);
  }
  // Rank j of the node passes whole bags on for the j-th ranks of all nodes, and their sums back.
  void add_exchange_through_nodes(const Lookups& all, ShardEstimate& e) const {
    const Lookups passed_on = whole_ * (world_ / in_node_);
    const Lookups parts = asked_for(in_node_) * (world_ / in_node_);
    const double copies =
        2 * id_bytes(passed_on) + 2 * id_bytes(parts) + parting_bytes(parts, in_node_);
    e.input_dist += across_nodes(id_bytes(passed_on)) + copies / memory_bandwidth() +
                    within_node(id_bytes(all));
    const double rows = within_node(pooled_bytes(all)) + across_nodes(pooled_bytes(passed_on));
    e.forward_comms +=
        rows + (pooled_bytes(passed_on) + 3 * pooled_bytes(parts)) / memory_bandwidth();
    e.backward_comms += rows + 2 * pooled_bytes(parts) / memory_bandwidth();
  }

  double id_bytes(const Lookups& n) const {
    return n.ids * (kIdBytes + (table_.weighted ? kFloatBytes : 0)) + n.bags * kIdBytes;
  }
  double pooled_bytes(const Lookups& n) const { return n.bags * columns_ * kFloatBytes; }
  double row_bytes() const { return std::max(columns_ * element_, kLineBytes); }
  double state_bytes() const { return state_floats(table_, columns_) * kFloatBytes; }
  double distinct_rows() const {
    return expected_distinct(whole_.ids * world_, static_cast<double>(table_.num_rows),
                             table_.zipf_exponent);
  }
  // Parts that a rank's ids leave it in.
  double num_parts() const {
    if (replicated() || goes_through_nodes(option_.type, topology_)) return 1;
    return option_.num_row_blocks;
  }
  static double parting_bytes(const Lookups& n, double num_parts) {
    return num_parts > 1 ? n.ids * kPartedBytes : 0;
  }
  // One rank's ids, parted by row block.
  Lookups asked_for(double num_row_blocks) const {
    const auto rows = static_cast<double>(table_.num_rows);
    const double block = std::ceil(rows / num_row_blocks);
    const double full = std::floor(rows / block);
    const Lookups in_full = count_lookups(table_, batch_size_, block / rows) * full;
    const Lookups rest = count_lookups(table_, batch_size_, 1 - full * block / rows);
    return {in_full.ids + rest.ids, in_full.bags + rest.bags};
  }

  // A row that occurs again is in a cache.
  double lookup_time(const Lookups& read, double distinct) const {
    const double first = std::min(distinct, read.ids);
    return first * row_bytes() / row_bandwidth(topology_.lookup_bandwidth) +
           ((read.ids - first) * columns_ * element_ + id_bytes(read) + pooled_bytes(read)) /
               memory_bandwidth();
  }
  // Ids are grouped by row; each bag's gradient is read, from then on in a cache; each row that
  // occurs is read and written once, with its state. For its squares, gradients are summed twice.
  double update_time(const Lookups& all, double distinct) const {
    const double state = state_bytes() > 0 ? std::max(state_bytes(), kLineBytes) : 0;
    const double squares = squares_are_exchanged() ? all.ids * columns_ * kFloatBytes : 0;
    return 2 * distinct * (row_bytes() + state) / row_bandwidth(topology_.update_bandwidth) +
           (all.ids * kGroupedBytes + pooled_bytes(all) + squares) / memory_bandwidth();
  }

  void add_memory(double rows, const Lookups& all, ShardEstimate& e) const {
    const auto whole = [](double bytes) { return static_cast<std::int64_t>(std::ceil(bytes)); };
    std::int64_t& near = topology_.device == PlannerDevice::kCuda ? e.device_bytes : e.host_bytes;
    const double rows_and_state = rows * (columns_ * element_ + state_bytes());
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
        near += whole(rows_and_state * kCachedShare + rows * kCacheIndexBytesPerRow);
        break;
    }
    e.exchange_bytes =
        static_cast<std::int64_t>(kBufferSlack * (id_bytes(all) + pooled_bytes(all)));
    near += e.exchange_bytes;
  }

  const PlannerTable& table_;
  const ShardingOption& option_;
  const PlannerTopology& topology_;
  std::int64_t batch_size_;
  double world_, in_node_;
  double columns_, element_;
  Lookups whole_;  // all of one rank's
};

}  // namespace

bool goes_through_nodes(ShardingType type, const PlannerTopology& topology) {
  return (type == ShardingType::kTableRowWise || type == ShardingType::kGrid) &&
         topology.ranks_per_node > 1 && topology.num_nodes() > 1;
}

ShardEstimate serrate_estimate(const PlannerTable& table, const ShardingOption& option,
                               std::int64_t rows, const PlannerTopology& topology,
                               std::int64_t batch_size) {
  return SerrateEstimator(table, option, topology, batch_size).shard(rows);
}

ShardEstimate serrate_everywhere(const PlannerTable& table, const ShardingOption& option,
                                 const PlannerTopology& topology, std::int64_t batch_size) {
  return SerrateEstimator(table, option, topology, batch_size).everywhere();
}

double serrate_latency(const PlannerModel& model, const PlannerTopology& topology,
                       std::span<const PlacedTable> placed) {
  const double in_node = (topology.ranks_per_node - 1) * topology.intra_node_latency;
  const double all =
      in_node + (topology.world_size - topology.ranks_per_node) * topology.inter_node_latency;
  const double through_nodes = in_node + (topology.num_nodes() - 1) * topology.inter_node_latency;
  const double weights =
      std::ranges::any_of(model.tables, [](const PlannerTable& t) { return t.weighted; }) ? 1 : 0;
  bool direct = false, by_nodes = false, replicated = false, squares = false;
  for (std::size_t t = 0; t < placed.size(); ++t) {
    const bool is_replicated = placed[t].type == ShardingType::kDataParallel;
    const bool is_by_nodes = goes_through_nodes(placed[t].type, topology);
    replicated |= is_replicated;
    by_nodes |= is_by_nodes;
    direct |= !is_replicated && !is_by_nodes;
    squares |= placed[t].blocks.size() > 1 &&
               model.tables[t].optimizer == SparseOptimizer::kRowWiseAdagrad;
  }
  // Ids, rows and gradients; ids always go, as they say that every rank's batch is good.
  return (1 + weights + (direct ? 2 : 0)) * all + (by_nodes ? 3 + weights : 0) * through_nodes +
         (replicated ? 2 + weights : 0) * all + (squares ? all : 0);
}

}  // namespace serrate
