#include "sharding/planner_state.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace serrate {
namespace {

// Calls visit(rank, device_bytes, host_bytes) for the ranks of a block, `rank_of` its i-th one.
template <typename RankOf, typename Visit>
void for_each_rank(const Candidate& c, const RankOf& rank_of, const Visit& visit) {
  int i = 0;
  for (const MemoryRun& run : c.memory) {
    for (; i < run.end; ++i) visit(rank_of(i), run.device_bytes, run.host_bytes);
  }
}

void erase(std::vector<SearchState::OnRank>& list, int item, int block) {
  for (auto& entry : list) {
    if (entry.item == item && entry.block == block) {
      entry = list.back();
      list.pop_back();
      return;
    }
  }
}

}  // namespace

SearchState::SearchState(const PlannerProblem& problem, const Phases& phases)
    : problem_(problem),
      phases_(phases),
      num_ranks_(problem.world_size),
      num_phases_(phases.num_phases),
      ranks_per_node_(problem.ranks_per_node),
      choice_(problem.items.size(), -1),
      blocks_(problem.items.size()),
      on_rank_(num_ranks_),
      on_node_(problem.num_nodes()),
      load_(static_cast<std::size_t>(num_ranks_) * num_phases_),
      device_(num_ranks_),
      host_(num_ranks_),
      inverse_target_(num_phases_, 1.0),
      weight_(num_phases_, 1.0),
      energy_(num_ranks_) {}

void SearchState::add_to_rank(int rank, const double* time, double sign, std::int64_t device,
                              std::int64_t host) {
  if (time) {
    double* load = &load_[static_cast<std::size_t>(rank) * num_phases_];
    for (int k = 0; k < num_phases_; ++k) load[k] += sign * time[k];
  }
  device_[rank] += sign > 0 ? device : -device;
  host_[rank] += sign > 0 ? host : -host;
  refresh_rank(rank);
}

void SearchState::apply(int item, int block, double sign) {
  const Candidate& c = candidate(item, choice_[item]);
  const Phases::Choice& choice = choice_of(item, choice_[item]);
  const double* time = choice.time.empty() ? nullptr : choice.time.data();
  const auto add = [&](int rank, std::int64_t device, std::int64_t host) {
    add_to_rank(rank, time, sign, device, host);
  };
  switch (c.scope) {
    case BlockScope::kRank:
      add(blocks_[item][block], c.memory.front().device_bytes, c.memory.front().host_bytes);
      break;
    case BlockScope::kNode: {
      const int first = blocks_[item][block] * ranks_per_node_;
      for_each_rank(c, [&](int i) { return first + i; }, add);
      break;
    }
    case BlockScope::kFixed:
      for_each_rank(c, [&](int i) { return problem_.items[item].ranks[i]; }, add);
      break;
    case BlockScope::kAll:
      for_each_rank(c, [](int i) { return i; }, add);
      break;
  }
}

void SearchState::place(int item, int choice, std::span<const int> blocks) {
  ++evaluations_;
  choice_[item] = choice;
  blocks_[item].assign(blocks.begin(), blocks.end());
  uniform_ += choice_of(item, choice).uniform;
  const Candidate& c = candidate(item, choice);
  if (c.scope == BlockScope::kAll || c.scope == BlockScope::kFixed) {
    apply(item, 0, 1);
    return;
  }
  auto& lists = c.scope == BlockScope::kRank ? on_rank_ : on_node_;
  for (int b = 0; b < std::ssize(blocks); ++b) {
    apply(item, b, 1);
    lists[blocks[b]].push_back({item, b});
  }
}

void SearchState::remove(int item) {
  uniform_ -= choice_of(item, choice_[item]).uniform;
  const Candidate& c = candidate(item, choice_[item]);
  if (c.scope == BlockScope::kAll || c.scope == BlockScope::kFixed) {
    apply(item, 0, -1);
  } else {
    auto& lists = c.scope == BlockScope::kRank ? on_rank_ : on_node_;
    for (int b = 0; b < std::ssize(blocks_[item]); ++b) {
      apply(item, b, -1);
      erase(lists[blocks_[item][b]], item, b);
    }
  }
  choice_[item] = -1;
  blocks_[item].clear();
}

bool SearchState::may_be_on(int item, int rank) const {
  const auto& ranks = problem_.items[item].ranks;
  return ranks.empty() || std::binary_search(ranks.begin(), ranks.end(), rank);
}

bool SearchState::may_be_on_node(int item, int node) const {
  for (int i = 0; i < ranks_per_node_; ++i) {
    if (!may_be_on(item, node * ranks_per_node_ + i)) return false;
  }
  return true;
}

double SearchState::memory_penalty(int rank, std::int64_t device, std::int64_t host) const {
  double penalty = 0;
  const auto add = [&](std::int64_t used, std::int64_t has) {
    if (used <= has) return;
    const double scale = static_cast<double>(std::max<std::int64_t>(has, 1));
    penalty += penalty_ * (0.01 + static_cast<double>(used - has) / scale);
  };
  add(device, problem_.device_bytes[rank]);
  add(host, problem_.host_bytes[rank]);
  return penalty;
}

double SearchState::energy_with(int rank, const double* time, double sign, std::int64_t device,
                                std::int64_t host) const {
  const double* load = &load_[static_cast<std::size_t>(rank) * num_phases_];
  double energy = memory_penalty(rank, device_[rank] + device, host_[rank] + host);
  for (int k = 0; k < num_phases_; ++k) {
    const double with = time ? load[k] + sign * time[k] : load[k];
    energy += weight_[k] * power(with * inverse_target_[k]);
  }
  return energy;
}

void SearchState::refresh_rank(int rank) {
  total_energy_ -= energy_[rank];
  energy_[rank] = energy_with(rank, nullptr, 0, 0, 0);
  total_energy_ += energy_[rank];
}

double SearchState::node_energy_change(int item, int choice, int node) {
  const double* time = choice_of(item, choice).time.data();
  double change = 0;
  for_each_rank(
      candidate(item, choice), [&](int i) { return node * ranks_per_node_ + i; },
      [&](int rank, std::int64_t device, std::int64_t host) {
        change += energy_with(rank, time, 1, device, host) - energy_[rank];
      });
  evaluations_ += ranks_per_node_;
  return change;
}

double SearchState::cheapest_blocks(int item, int choice, std::span<const int> ranks,
                                    std::vector<int>& blocks) {
  const Candidate& c = candidate(item, choice);
  const Phases::Choice& chosen = choice_of(item, choice);
  blocks.clear();
  const double* time = chosen.time.empty() ? nullptr : chosen.time.data();
  double change = 0;
  const auto add_change = [&](int rank, std::int64_t device, std::int64_t host) {
    change += energy_with(rank, time, 1, device, host) - energy_[rank];
  };
  if (c.scope == BlockScope::kAll) {
    for_each_rank(
        c, [](int i) { return i; },
        [&](int rank, std::int64_t device, std::int64_t host) {
          change += memory_penalty(rank, device_[rank] + device, host_[rank] + host) -
                    memory_penalty(rank, device_[rank], host_[rank]);
        });
    evaluations_ += 1 + num_ranks_ / 8;
    return change + chosen.uniform;
  }
  if (c.scope == BlockScope::kFixed) {
    for_each_rank(c, [&](int i) { return problem_.items[item].ranks[i]; }, add_change);
    evaluations_ += std::ssize(problem_.items[item].ranks);
    return change + chosen.uniform;
  }
  const bool on_rank = c.scope == BlockScope::kRank;
  const bool one_node = c.type == ShardingType::kTableColumnWise;
  const std::int64_t device = c.memory.front().device_bytes;
  const std::int64_t host = c.memory.front().host_bytes;
  const auto change_at = [&](int place) {
    if (!on_rank) return node_energy_change(item, choice, place);
    ++evaluations_;
    return energy_with(place, time, 1, device, host) - energy_[place];
  };
  const auto allowed = [&](int place) {
    return on_rank ? may_be_on(item, place) : may_be_on_node(item, place);
  };
  const auto add_blocks = [&](int begin, int end, std::span<const int> among) {
    double sum = 0;
    for (int b = 0; b < c.num_blocks; ++b) {
      double best = std::numeric_limits<double>::infinity();
      int at = -1;
      const auto consider = [&](int place) {
        if (!allowed(place)) return;
        const double at_place = change_at(place);
        if (at_place < best) {
          best = at_place;
          at = place;
        }
      };
      if (among.empty()) {
        for (int place = begin; place < end; ++place) consider(place);
      } else {
        for (const int place : among) consider(place);
      }
      if (at < 0) {
        sum = std::numeric_limits<double>::infinity();
        break;
      }
      sum += best;
      blocks.push_back(at);
      if (b + 1 == c.num_blocks) break;
      const auto add = [&](int rank, std::int64_t d, std::int64_t h) {
        add_to_rank(rank, time, 1, d, h);
      };
      if (on_rank) {
        add(at, device, host);
      } else {
        for_each_rank(c, [&](int i) { return at * ranks_per_node_ + i; }, add);
      }
    }
    for (int b = 0; b < std::min<int>(c.num_blocks - 1, static_cast<int>(blocks.size())); ++b) {
      const auto take = [&](int rank, std::int64_t d, std::int64_t h) {
        add_to_rank(rank, time, -1, d, h);
      };
      if (on_rank) {
        take(blocks[b], device, host);
      } else {
        for_each_rank(c, [&](int i) { return blocks[b] * ranks_per_node_ + i; }, take);
      }
    }
    return sum;
  };
  if (!one_node || c.num_blocks == 1) {
    return chosen.uniform + add_blocks(0, on_rank ? num_ranks_ : num_nodes(),
                                       on_rank ? ranks : std::span<const int>{});
  }
  double best = std::numeric_limits<double>::infinity();
  std::vector<int> best_blocks;
  for (int node = 0; node < num_nodes(); ++node) {
    blocks.clear();
    const double at = add_blocks(node * ranks_per_node_, (node + 1) * ranks_per_node_, {});
    if (at < best) {
      best = at;
      best_blocks = blocks;
    }
  }
  blocks = best_blocks;
  return best + chosen.uniform;
}

double SearchState::energy_with_swap(int rank, const double* out, const Candidate& out_candidate,
                                     const double* in, const Candidate& in_candidate) const {
  const double* load = &load_[static_cast<std::size_t>(rank) * num_phases_];
  const MemoryRun& leaves = out_candidate.memory.front();
  const MemoryRun& comes = in_candidate.memory.front();
  double energy = memory_penalty(rank, device_[rank] - leaves.device_bytes + comes.device_bytes,
                                 host_[rank] - leaves.host_bytes + comes.host_bytes);
  for (int k = 0; k < num_phases_; ++k) {
    energy += weight_[k] * power((load[k] - out[k] + in[k]) * inverse_target_[k]);
  }
  return energy;
}

bool SearchState::may_move(int item, int from, int to) const {
  const Candidate& c = candidate(item, choice_[item]);
  const bool in_node = c.type == ShardingType::kTableColumnWise && c.num_blocks > 1;
  return may_be_on(item, to) && (!in_node || from / ranks_per_node_ == to / ranks_per_node_);
}

double SearchState::move_change(int item, int block, int to) {
  const int from = blocks_[item][block];
  ++evaluations_;
  if (!may_move(item, from, to)) return std::numeric_limits<double>::infinity();
  const MemoryRun& memory = candidate(item, choice_[item]).memory.front();
  const double* time = choice_of(item, choice_[item]).time.data();
  return energy_with(from, time, -1, -memory.device_bytes, -memory.host_bytes) - energy_[from] +
         energy_with(to, time, 1, memory.device_bytes, memory.host_bytes) - energy_[to];
}

void SearchState::move_block(int item, int block, int to) {
  const int from = blocks_[item][block];
  apply(item, block, -1);
  erase(on_rank_[from], item, block);
  blocks_[item][block] = to;
  apply(item, block, 1);
  on_rank_[to].push_back({item, block});
}

double SearchState::swap_change(int item_a, int block_a, int item_b, int block_b) {
  const int rank_a = blocks_[item_a][block_a];
  const int rank_b = blocks_[item_b][block_b];
  ++evaluations_;
  if (!may_move(item_a, rank_a, rank_b) || !may_move(item_b, rank_b, rank_a)) {
    return std::numeric_limits<double>::infinity();
  }
  const Candidate& a = candidate(item_a, choice_[item_a]);
  const Candidate& b = candidate(item_b, choice_[item_b]);
  const double* time_a = choice_of(item_a, choice_[item_a]).time.data();
  const double* time_b = choice_of(item_b, choice_[item_b]).time.data();
  return energy_with_swap(rank_a, time_a, a, time_b, b) - energy_[rank_a] +
         energy_with_swap(rank_b, time_b, b, time_a, a) - energy_[rank_b];
}

void SearchState::swap_blocks(int item_a, int block_a, int item_b, int block_b) {
  const int rank_a = blocks_[item_a][block_a];
  move_block(item_a, block_a, blocks_[item_b][block_b]);
  move_block(item_b, block_b, rank_a);
}

void SearchState::refresh_energy(int doublings) {
  std::vector<double> longest(num_phases_, 0.0);
  for (int rank = 0; rank < num_ranks_; ++rank) {
    for (int k = 0; k < num_phases_; ++k) {
      longest[k] = std::max(longest[k], load_[static_cast<std::size_t>(rank) * num_phases_ + k]);
    }
  }
  set_targets(std::move(longest), doublings);
}

void SearchState::set_targets(std::vector<double> targets, int doublings) {
  doublings_ = doublings;
  const double p = static_cast<double>(1 << doublings);
  penalty_ = 100 * (uniform_ + 1e-6);
  for (int k = 0; k < num_phases_; ++k) {
    const double target = std::max(targets[k], 1e-9);
    penalty_ += 100 * target;
    inverse_target_[k] = 1 / target;
    double sum = 0;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      sum += power(load_[static_cast<std::size_t>(rank) * num_phases_ + k] / target);
    }
    const double mean = std::max(sum, 1.0) / num_ranks_;
    weight_[k] = target * std::pow(mean, 1 / p - 1) / (p * num_ranks_);
  }
  for (int rank = 0; rank < num_ranks_; ++rank) refresh_rank(rank);
  total_energy_ = std::accumulate(energy_.begin(), energy_.end(), 0.0);  // exactly, again
}

double SearchState::objective() const {
  double sum = uniform_;
  for (int k = 0; k < num_phases_; ++k) {
    double longest = 0;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      longest = std::max(longest, load_[static_cast<std::size_t>(rank) * num_phases_ + k]);
    }
    sum += longest;
  }
  return sum;
}

double SearchState::memory_excess() const {
  double excess = 0;
  const auto add = [&](std::int64_t used, std::int64_t has) {
    if (used > has) {
      excess +=
          static_cast<double>(used - has) / static_cast<double>(std::max<std::int64_t>(has, 1));
    }
  };
  for (int rank = 0; rank < num_ranks_; ++rank) {
    add(device_[rank], problem_.device_bytes[rank]);
    add(host_[rank], problem_.host_bytes[rank]);
  }
  return excess;
}

bool SearchState::within_memory() const {
  for (int rank = 0; rank < num_ranks_; ++rank) {
    if (device_[rank] > problem_.device_bytes[rank] || host_[rank] > problem_.host_bytes[rank]) {
      return false;
    }
  }
  return true;
}

std::vector<ItemPlacement> SearchState::placement() const {
  std::vector<ItemPlacement> items;
  for (int i = 0; i < num_items(); ++i) {
    items.push_back({choice_of(i, choice_[i]).candidate, blocks_[i]});
  }
  return items;
}

}  // namespace serrate
