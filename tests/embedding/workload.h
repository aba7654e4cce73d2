#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "serrate/sharded_embedding.h"
#include "tests/reference/sharded_training.h"

namespace serrate {

/// A training job for the key property: the same global batches, cut between any number of ranks.
struct Workload {
  std::vector<EmbeddingTable> tables;
  SparseOptimizerOptions optimizer;
  int num_steps = 10;
  std::int64_t bags_per_feature = 40;  ///< at most
  std::int64_t longest_bag = 5;
  SplitBags split_bags = SplitBags::kPartialSums;
  double feedback = 0.25;  ///< of an output in its gradient
};

/// Tables that share features and features that share a table; sum and mean; dims that a column cut
/// does not divide evenly; fewer rows than ranks need.
std::vector<EmbeddingTable> workload_tables();

/// The bags of every feature in one step. Odd steps have weights; some have features without bags
/// or no bags at all.
using GlobalBatch = std::map<std::string, reference::WeightedBags>;
GlobalBatch global_batch(const Workload& workload, int step);
bool is_weighted(int step);

/// The gradient that training pulls from an output: what of it is fed back, and a function of its
/// place in the global batch.
double d_output(double feedback, std::int64_t lookup, std::int64_t bag, std::int64_t column,
                int step);

/// Everything a job computes, named: "output 3 items/user", "items weights", ...
template <typename T>
using Tensors = std::map<std::string, std::vector<T>>;

/// What one rank has at the end.
struct RankResult {
  struct OwnShard {
    std::string table;
    Shard shard;
    std::vector<float> weights, state, second_moment;
    friend bool operator==(const OwnShard&, const OwnShard&) = default;
  };
  Tensors<float> outputs;  ///< of the rank's own bags
  std::vector<OwnShard> shards;
  friend bool operator==(const RankResult&, const RankResult&) = default;
};

RankResult train_rank(const Workload& workload, const ShardingPlan& plan,
                      Communicator& communicator, const Stream& stream);
/// train_rank on ranks that are threads, by rank.
std::vector<RankResult> train_thread_ranks(const Workload& workload, const ShardingPlan& plan,
                                           int num_threads = 1, Device device = Device::cpu());
/// The tensors of the whole job; throws Error if replicas have different bits.
Tensors<float> assemble(const Workload& workload, const std::vector<RankResult>& ranks);

/// The same in double precision, from the given initial tables.
Tensors<double> train_reference(const Workload& workload, const Tensors<float>& initial);

/// Every table under one type, on ranks in turn.
ShardingPlan uniform_plan(const Workload& workload, ShardingType type, int world_size,
                          int ranks_per_node = 0);
/// Each type at once, and shards that shard_table would not make: uneven blocks, in another order
/// of ranks, several on one rank, columns cut in odd places.
ShardingPlan mixed_plan(const Workload& workload, int world_size);
/// The same for the types that need nodes: grids with several column blocks on a node, row blocks
/// in another order of ranks and several on one, a table for which nodes mean nothing.
ShardingPlan mixed_node_plan(const Workload& workload, int world_size, int ranks_per_node);
/// Every table row_wise on the odd ranks alone (all there are when the world is one rank), the last
/// first.
ShardingPlan odd_rank_plan(const Workload& workload, int world_size);

}  // namespace serrate
