#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "serrate/planner.h"

namespace serrate {

/// How many random problems a test takes: a tenth with sanitizers, as each takes several times as
/// long.
constexpr int random_problems(int without_sanitizers) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return without_sanitizers / 10;
#else
  return without_sanitizers;
#endif
}

struct PlannerInstance {
  PlannerModel model;
  PlannerTopology topology;
};

/// Planning problems of all kinds: sharding types, kernels and ranks left free or not, groups,
/// devices or none, memory from far too little to plenty, alike on all ranks or not.
class RandomInstances {
 public:
  explicit RandomInstances(std::uint64_t seed) : engine_(seed) {}

  PlannerInstance next(int most_tables, int most_nodes, int most_ranks_per_node) {
    PlannerInstance instance;
    PlannerTopology& t = instance.topology;
    t.ranks_per_node = between(1, most_ranks_per_node);
    t.world_size = t.ranks_per_node * between(1, most_nodes);
    t.device = chance(0.2) ? PlannerDevice::kCpu : PlannerDevice::kCuda;
    if (chance(0.5)) t.inter_node_bandwidth = t.intra_node_bandwidth / between(1, 20);
    if (chance(0.5)) {
      t.intra_node_latency = 1e-3 * uniform();
      t.inter_node_latency = 1e-2 * uniform();
    }
    instance.model.batch_size = 1 << between(0, 10);
    const int num_tables = between(1, most_tables);
    for (int i = 0; i < num_tables; ++i) instance.model.tables.push_back(table(i, t.world_size));
    share_ranks(instance.model);
    set_memory(instance);
    return instance;
  }

  PlannerObjective any_objective() { return static_cast<PlannerObjective>(between(0, 1)); }
  PlannerEstimator any_estimator() {
    return chance(0.15) ? PlannerEstimator::kSerrate : PlannerEstimator::kTorchRec;
  }

  int between(int low, int high) {
    return low + static_cast<int>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  double uniform() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
  bool chance(double part) { return uniform() < part; }

 private:
  PlannerTable table(int index, int world_size) {
    using enum ShardingType;
    PlannerTable t{.name = std::to_string(index)};
    t.num_rows = between(1, 1 << between(1, 20));
    t.dim = 4 * between(1, 1 << between(1, 6));
    t.bytes_per_element = chance(0.8) ? 4 : 2;
    t.pooled = chance(0.8);
    t.weighted = chance(0.2);
    t.min_columns = 4 * between(1, 40);
    if (t.dim / t.min_columns > 3) t.min_columns = t.dim / 2;  // few blocks
    for (int f = between(0, 2); f >= 0; --f) {
      t.features.push_back({.pooling_factor = 100 * uniform() * uniform(),
                            .num_poolings = static_cast<double>(between(1, 3)),
                            .batch_size = chance(0.8) ? 0 : between(1, 100)});
    }
    if (chance(0.5)) t.zipf_exponent = 1.5 * uniform();
    if (chance(0.5)) t.optimizer = static_cast<SparseOptimizer>(between(0, 3));
    if (chance(0.3)) {
      t.sharding_types = {kTableWise};  // one that is possible whatever else is asked for
      for (const auto type :
           {kDataParallel, kRowWise, kColumnWise, kTableRowWise, kTableColumnWise, kGrid}) {
        if (chance(0.4)) t.sharding_types.push_back(type);
      }
    }
    if (chance(0.4)) {
      t.kernels = {ComputeKernel::kFused};
      for (const auto kernel :
           {ComputeKernel::kDense, ComputeKernel::kFusedUvm, ComputeKernel::kFusedUvmCaching}) {
        if (chance(0.5)) t.kernels.push_back(kernel);
      }
    }
    if (chance(0.15)) {
      for (int r = 0; r < world_size; ++r) {
        if (chance(0.5)) t.ranks.push_back(r);
      }
      if (std::ssize(t.ranks) == world_size) t.ranks.pop_back();
    }
    if (chance(0.15)) t.group = std::string(1, 'g');
    return t;
  }

  // The tables of a group may be on the same ranks, by the same kernels and types.
  static void share_ranks(PlannerModel& model) {
    const PlannerTable* first = nullptr;
    for (PlannerTable& t : model.tables) {
      if (t.group.empty()) continue;
      if (!first) first = &t;
      t.ranks = first->ranks;
      t.sharding_types = first->sharding_types;
      t.kernels = first->kernels;
    }
  }

  void set_memory(PlannerInstance& instance) {
    PlannerTopology& t = instance.topology;
    double bytes = 0;
    for (const PlannerTable& table : instance.model.tables) {
      bytes += static_cast<double>(table.num_rows * table.dim * table.bytes_per_element);
    }
    const double plenty = chance(0.5) ? 100 : 0.5 + 2 * uniform();
    const bool alike = chance(0.7);
    for (int r = 0; r < t.world_size; ++r) {
      const double part = plenty * (alike ? 1 : uniform()) / t.world_size;
      t.device_bytes.push_back(
          t.device == PlannerDevice::kCpu ? 0 : static_cast<std::int64_t>(bytes * part));
      t.host_bytes.push_back(static_cast<std::int64_t>(2 * bytes * part));
    }
  }

  std::mt19937_64 engine_;
};

}  // namespace serrate
