#include "sharding/estimate/torchrec_estimator.h"

#include <algorithm>
#include <cmath>

namespace serrate {
namespace {

// TorchRec's constants (planner/constants.py).
constexpr double kIndexBytes = 8;
constexpr double kBatchedCopyFactor = 2.455;
constexpr double kDataParallelBackwardFactor = 9.22;
constexpr double kBackwardComputeFactor = 2.0;
constexpr double kWeightedBackwardFactor = 1.1;
constexpr double kCacheRatio = 0.2;
constexpr double kCacheBytesPerRow = 4;
constexpr double kCacheBytesPerCachedRow = 16;
constexpr std::int64_t kFullLookupColumns = 32;

// What the features of a table look up in a step on one rank.
struct Lookups {
  double ids = 0;
  double bags = 0;  // with a vector in the output; the ids themselves when not pooled
};

Lookups count_lookups(const PlannerTable& table, std::int64_t batch_size) {
  Lookups n;
  for (const PlannerFeature& f : table.features) {
    const auto samples = static_cast<double>(f.batch_size > 0 ? f.batch_size : batch_size);
    n.ids += f.pooling_factor * f.num_poolings * samples;
    n.bags += std::min(1.0, f.pooling_factor) * f.num_poolings * samples;
  }
  if (!table.pooled) n.bags = n.ids;
  return n;
}

double lookup_bandwidth(ComputeKernel kernel, const PlannerTopology& t) {
  const double memory = t.device == PlannerDevice::kCuda ? t.device_bandwidth : t.host_bandwidth;
  switch (kernel) {
    case ComputeKernel::kDense:
      return 0.5 * memory;
    case ComputeKernel::kFused:
      return memory;
    case ComputeKernel::kFusedUvm:
      return t.host_link_bandwidth / 10;
    case ComputeKernel::kFusedUvmCaching:
      return (kCacheRatio * memory + (1 - kCacheRatio) * t.host_link_bandwidth) / 10;
  }
  return memory;
}

double column_penalty(std::int64_t columns) {
  if (columns >= 128) return 1;
  return columns >= 64 ? 1.15 : 1.75;
}

// Bytes that one shard reads and writes in the forward pass.
struct Traffic {
  double input = 0;
  double lookup = 0;
  double output = 0;
};

class TorchRecEstimator {
 public:
  TorchRecEstimator(const PlannerTable& table, const ShardingOption& option, std::int64_t rows,
                    const PlannerTopology& topology, std::int64_t batch_size)
      : table_(table),
        option_(option),
        rows_(rows),
        topology_(topology),
        world_(topology.world_size),
        local_(topology.ranks_per_node),
        bandwidth_(lookup_bandwidth(option.kernel, topology)),
        element_(static_cast<double>(table.bytes_per_element)),
        columns_(static_cast<double>(option.columns)),
        lookups_(count_lookups(table, batch_size)) {}

  ShardEstimate estimate() const {
    const Traffic traffic = count_traffic();
    ShardEstimate e;
    const double penalty = is_whole_rows() ? column_penalty(option_.columns) : 1;
    const double input = traffic.input * (table_.weighted ? 2 : 1);
    e.forward_compute = (input + traffic.lookup + traffic.output) * penalty / bandwidth_;
    e.backward_compute = e.forward_compute *
                         (kBackwardComputeFactor + (table_.weighted ? kWeightedBackwardFactor : 0));
    add_comms(traffic.output, e);
    if (option_.type != ShardingType::kDataParallel) {
      e.input_dist = std::ceil(lookups_.ids * world_ * kIndexBytes) / exchange_bandwidth();
    }
    add_memory(traffic, e);
    return e;
  }

 private:
  // table_wise and column_wise: all lookups of a block's columns are served by its one rank.
  bool is_whole_rows() const {
    return option_.type == ShardingType::kTableWise || option_.type == ShardingType::kColumnWise ||
           option_.type == ShardingType::kTableColumnWise;
  }
  double exchange_bandwidth() const {
    return world_ <= local_ ? topology_.intra_node_bandwidth : topology_.inter_node_bandwidth;
  }

  Traffic count_traffic() const {
    const double all_ids = lookups_.ids * world_;
    const double all_output = lookups_.bags * world_ * columns_ * element_;
    if (is_whole_rows()) {
      const auto read = static_cast<double>(std::max(option_.columns, kFullLookupColumns));
      return {std::ceil(all_ids * kIndexBytes), all_ids * read * element_, all_output};
    }
    if (option_.type == ShardingType::kDataParallel) {
      return {std::ceil(lookups_.ids * kIndexBytes), lookups_.ids * columns_ * element_,
              lookups_.bags * columns_ * element_};
    }
    const double ids = all_ids / option_.num_row_blocks;
    const double lookup = ids * columns_ * element_;
    return {std::ceil(ids * kIndexBytes), lookup, table_.pooled ? all_output : lookup};
  }

  void add_comms(double output, ShardEstimate& e) const {
    if (option_.type == ShardingType::kDataParallel) {
      const double bytes = static_cast<double>(table_.num_rows) * columns_ * element_;
      const double nodes = std::min(world_ / local_, 2.0);
      const double rings = world_ > 2 * local_ ? 2 : 1;
      e.backward_comms =
          bytes * (2 * nodes - 1) / nodes * rings / (topology_.inter_node_bandwidth * local_) +
          bytes * kDataParallelBackwardFactor / bandwidth_;
      return;
    }
    const bool hierarchical =
        option_.type == ShardingType::kTableRowWise || option_.type == ShardingType::kGrid;
    const double exchange = hierarchical
                                ? output / topology_.intra_node_bandwidth + between_nodes(output)
                                : output / exchange_bandwidth();
    e.forward_comms = exchange;
    e.backward_comms = exchange + (is_whole_rows() ? 0 : output * kBatchedCopyFactor / bandwidth_);
  }
  double between_nodes(double output) const {
    return world_ > local_ ? output / local_ / topology_.inter_node_bandwidth : 0;
  }

  void add_memory(const Traffic& traffic, ShardEstimate& e) const {
    const std::int64_t weights = rows_ * option_.columns * table_.bytes_per_element;
    const auto optimizer = [&](std::int64_t bytes) {
      return static_cast<std::int64_t>(
          std::ceil(static_cast<double>(bytes) * optimizer_multiplier()));
    };
    std::int64_t& near = topology_.device == PlannerDevice::kCuda ? e.device_bytes : e.host_bytes;
    switch (option_.kernel) {
      case ComputeKernel::kDense:
      case ComputeKernel::kFused:
        near += weights + optimizer(weights);
        break;
      case ComputeKernel::kFusedUvm:
        e.host_bytes += weights + optimizer(weights);
        break;
      case ComputeKernel::kFusedUvmCaching: {
        const std::int64_t cached = cached_bytes();
        e.host_bytes += weights + optimizer(weights);
        near += cached + optimizer(cached) + cache_index_bytes();
        break;
      }
    }
    if (rows_ > 0) {
      near += static_cast<std::int64_t>(std::ceil(traffic.input) + std::ceil(traffic.output));
    }
  }
  double optimizer_multiplier() const {
    if (!table_.optimizer || *table_.optimizer == SparseOptimizer::kSgd) return 0;
    if (*table_.optimizer == SparseOptimizer::kAdam) return 2;
    if (*table_.optimizer == SparseOptimizer::kRowWiseAdagrad) {
      return 1 / static_cast<double>(table_.dim);
    }
    return 1;
  }
  // The table's share of the cache, as the shard's share of the table. TorchRec multiplies and
  // divides integers, and so rounds once.
  std::int64_t cached_bytes() const {
    const auto table_elements = static_cast<double>(table_.num_rows * table_.dim);
    const double cached = std::nearbyint(table_elements * element_ * kCacheRatio);
    const double elements = static_cast<double>(rows_) * columns_;
    const double product = cached * elements;
    const double product_rest = std::fma(cached, elements, -product);
    const double bytes = product / table_elements;
    const double rest = std::fma(-bytes, table_elements, product) + product_rest;
    return static_cast<std::int64_t>(std::ceil(bytes + rest / table_elements));
  }
  std::int64_t cache_index_bytes() const {
    return static_cast<std::int64_t>(std::ceil(
        static_cast<double>(rows_) * (kCacheBytesPerRow + kCacheBytesPerCachedRow * kCacheRatio)));
  }

  const PlannerTable& table_;
  const ShardingOption& option_;
  std::int64_t rows_;
  const PlannerTopology& topology_;
  double world_, local_;
  double bandwidth_;
  double element_;
  double columns_;
  Lookups lookups_;
};

}  // namespace

ShardEstimate torchrec_estimate(const PlannerTable& table, const ShardingOption& option,
                                std::int64_t rows, const PlannerTopology& topology,
                                std::int64_t batch_size) {
  return TorchRecEstimator(table, option, rows, topology, batch_size).estimate();
}

}  // namespace serrate
