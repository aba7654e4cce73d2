#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "sharding/planner/phases.h"
#include "sharding/planner/problem.h"
#include "sharding/planner/search.h"

namespace serrate {

/// A placement that is changed item by item, with each rank's load and memory, and its energy: a
/// smooth form of the objective that falls when a long rank gets shorter, even if another one is
/// as long. With T_k the longest rank of phase k and p the sharpness, it is
///   uniform + sum over k of T_k * (mean over ranks of (load / T_k)^p)^(1 / p),
/// used through its linear part in each rank's (load / T_k)^p, plus a penalty for memory beyond
/// what a rank has.
class SearchState {
 public:
  SearchState(const PlannerProblem& problem, const Phases& phases);

  int num_ranks() const { return num_ranks_; }
  int num_items() const { return static_cast<int>(choice_.size()); }
  int num_nodes() const { return num_ranks_ / ranks_per_node_; }
  std::int64_t evaluations() const { return evaluations_; }

  // Item i's choice among phases.items[i]; -1: not placed.
  int choice(int item) const { return choice_[item]; }
  const Phases::Choice& choice_of(int item, int choice) const {
    return phases_.items[item][choice];
  }
  const Candidate& candidate(int item, int choice) const {
    return problem_.items[item].candidates[phases_.items[item][choice].candidate];
  }
  std::span<const int> blocks(int item) const { return blocks_[item]; }
  // Not confined to other ranks.
  bool may_be_on(int item, int rank) const {
    const auto& ranks = problem_.items[item].ranks;
    return ranks.empty() || std::binary_search(ranks.begin(), ranks.end(), rank);
  }
  bool may_be_on_node(int item, int node) const;
  // The same for one of its blocks that is on a rank alone, beside the others as they are.
  bool may_move(int item, int from, int to) const;

  void place(int item, int choice, std::span<const int> blocks);
  void remove(int item);

  // Where the blocks of a choice cost the least energy, taking one after another; the item must not
  // be placed. Returns the energy, infinite when there is no place; `blocks` gets ranks or nodes.
  // Only `ranks` are tried for blocks on a rank when it is not empty.
  double cheapest_blocks(int item, int choice, std::span<const int> ranks,
                         std::vector<int>& blocks);

  // What the energy would change by if a block on a rank alone were on another one; infinite when
  // it may not be there.
  double move_change(int item, int block, int to);
  void move_block(int item, int block, int to);
  // The same for a block on one rank and a block on another that change places.
  double swap_change(int item_a, int block_a, int item_b, int block_b);
  void swap_blocks(int item_a, int block_a, int item_b, int block_b);

  struct OnRank {
    int item = 0;
    int block = 0;
  };
  // Divides blocks, each of which may be on either of two ranks, so that the energy is the least of
  // all ways to do so. False when it falls by no more than `least_gain`: then they stay.
  bool divide_anew(int rank_a, int rank_b, std::span<const OnRank> blocks, double least_gain);

  // Blocks on a rank alone; those on nodes.
  const std::vector<OnRank>& on_rank(int rank) const { return on_rank_[rank]; }
  const std::vector<OnRank>& on_node(int node) const { return on_node_[node]; }

  // Takes the energy's reference from the loads as they are. 2^doublings is the sharpness.
  void refresh_energy(int doublings);
  // As refresh_energy, from given times for the phases' longest ranks.
  void set_targets(std::vector<double> targets, int doublings);
  // What exceeding a rank's memory costs, as multiples of the objective: `all` for as much again as
  // it has, or a part of that for a part; `any` on top for any excess. refresh_energy() has to
  // follow.
  struct MemoryPrice {
    double all = 100;
    double any = 1;
  };
  void set_memory_price(MemoryPrice price) { memory_price_ = price; }
  double rank_energy(int rank) const { return energy_[rank]; }
  double total_energy() const { return total_energy_; }

  // What is left of a rank's memory with so much more on it, as a part; negative when that does not
  // fit.
  double room_with(int rank, const MemoryRun& more) const;

  double objective() const;
  // Bytes beyond what ranks have, as parts of what a rank has, summed.
  double memory_excess() const;
  bool within_memory() const;
  std::vector<ItemPlacement> placement() const;

 private:
  static constexpr double kMostRatio = 8;  // of a load to its target; powers stay finite
  std::vector<double> slowest() const;     // [num_phases]
  double power(double ratio) const {
    ratio = std::min(ratio, kMostRatio);
    for (int i = 0; i < doublings_; ++i) ratio *= ratio;
    return ratio;
  }
  // A rank's with load_of(k) in phase k, and so many bytes.
  template <typename LoadOf>
  double energy_at(int rank, const LoadOf& load_of, std::int64_t device, std::int64_t host) const {
    double energy = memory_penalty(rank, device, host);
    for (int k = 0; k < num_phases_; ++k) {
      energy += weight_[k] * power(load_of(k) * inverse_target_[k]);
    }
    return energy;
  }
  double load(int rank, int phase) const {
    return load_[static_cast<std::size_t>(phase) * num_ranks_ + rank];
  }
  // Sets energies_ of ranks [begin, end) to theirs with so much time and memory more.
  void energies_with(int begin, int end, const double* time, std::int64_t device,
                     std::int64_t host);
  double energy_with(int rank, const double* time, double sign, std::int64_t device,
                     std::int64_t host) const;
  double energy_with_swap(int rank, const double* out, const Candidate& out_candidate,
                          const double* in, const Candidate& in_candidate) const;
  double memory_penalty(int rank, std::int64_t device, std::int64_t host) const {
    if (device <= problem_.device_bytes[rank] && host <= problem_.host_bytes[rank]) return 0;
    return penalty_ * beyond_memory(rank, device, host);
  }
  double beyond_memory(int rank, std::int64_t device, std::int64_t host) const;
  // Calls visit(begin, end, device_bytes, host_bytes) for the ranks [begin, end) of a block that is
  // put on `place`, which hold as much each.
  template <typename Visit>
  void for_each_run(int item, int choice, int place, const Visit& visit) const {
    const Candidate& c = candidate(item, choice);
    const int first = c.scope == BlockScope::kRank   ? place
                      : c.scope == BlockScope::kNode ? place * ranks_per_node_
                                                     : 0;
    int begin = 0;
    for (const MemoryRun& run : c.memory) {
      if (c.scope != BlockScope::kFixed) {
        visit(first + begin, first + run.end, run.device_bytes, run.host_bytes);
      } else {
        for (int i = begin; i < run.end; ++i) {
          const int rank = problem_.items[item].ranks[i];
          visit(rank, rank + 1, run.device_bytes, run.host_bytes);
        }
      }
      begin = run.end;
    }
  }
  void add_block(int item, int choice, int place, double sign);
  void refresh_ranks(int begin, int end);
  bool fits_everywhere(const MemoryRun& more) const;
  double block_change(int item, int choice, int place);
  double spread_blocks(int item, int choice, std::span<const int> places, std::vector<int>& blocks);
  double blocks_in_one_node(int item, int choice, std::vector<int>& blocks);

  const PlannerProblem& problem_;
  const Phases& phases_;
  int num_ranks_;
  int num_phases_;
  int ranks_per_node_;

  std::vector<int> choice_;               // [num_items]
  std::vector<std::vector<int>> blocks_;  // [num_items][num_blocks]
  std::vector<std::vector<OnRank>> on_rank_;
  std::vector<std::vector<OnRank>> on_node_;
  double uniform_ = 0;
  std::vector<double> load_;          // [num_phases, num_ranks]
  std::vector<std::int64_t> device_;  // [num_ranks]
  std::vector<std::int64_t> host_;    // [num_ranks]

  int doublings_ = 0;
  std::vector<double> inverse_target_;  // [num_phases]
  std::vector<double> weight_;          // [num_phases], ms per power of (load / target)
  MemoryPrice memory_price_;
  double penalty_ = 1;          // ms that a price of 1 stands for
  std::vector<double> energy_;  // [num_ranks]
  double total_energy_ = 0;
  std::vector<int> places_;      // 0, 1, ... num_ranks - 1
  std::vector<double> no_time_;  // [num_phases], zeros
  // Kept to reuse their memory; [num_ranks].
  std::vector<double> energies_, powers_, changes_;
  std::vector<int> allowed_;
  std::int64_t evaluations_ = 0;
};

}  // namespace serrate
