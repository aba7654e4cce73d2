#include "sharding/planner/state.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace serrate {
namespace {

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
      energy_(num_ranks_),
      places_(num_ranks_),
      no_time_(num_phases_),
      energies_(num_ranks_),
      powers_(num_ranks_) {
  std::iota(places_.begin(), places_.end(), 0);
}

void SearchState::add_block(int item, int choice, int place, double sign) {
  const std::vector<double>& time = choice_of(item, choice).time;
  for_each_run(item, choice, place,
               [&](int begin, int end, std::int64_t device, std::int64_t host) {
                 for (std::size_t k = 0; k < time.size(); ++k) {
                   double* load = &load_[k * num_ranks_];
                   for (int rank = begin; rank < end; ++rank) load[rank] += sign * time[k];
                 }
                 for (int rank = begin; rank < end; ++rank) {
                   device_[rank] += sign > 0 ? device : -device;
                   host_[rank] += sign > 0 ? host : -host;
                 }
                 refresh_ranks(begin, end);
               });
}

void SearchState::place(int item, int choice, std::span<const int> blocks) {
  ++evaluations_;
  choice_[item] = choice;
  blocks_[item].assign(blocks.begin(), blocks.end());
  uniform_ += choice_of(item, choice).uniform;
  if (blocks.empty()) add_block(item, choice, 0, 1);
  auto& lists = candidate(item, choice).scope == BlockScope::kRank ? on_rank_ : on_node_;
  for (int b = 0; b < std::ssize(blocks); ++b) {
    add_block(item, choice, blocks[b], 1);
    lists[blocks[b]].push_back({item, b});
  }
}

void SearchState::remove(int item) {
  const int choice = choice_[item];
  uniform_ -= choice_of(item, choice).uniform;
  if (blocks_[item].empty()) add_block(item, choice, 0, -1);
  auto& lists = candidate(item, choice).scope == BlockScope::kRank ? on_rank_ : on_node_;
  for (int b = 0; b < std::ssize(blocks_[item]); ++b) {
    add_block(item, choice, blocks_[item][b], -1);
    erase(lists[blocks_[item][b]], item, b);
  }
  choice_[item] = -1;
  blocks_[item].clear();
}

bool SearchState::may_be_on_node(int item, int node) const {
  for (int i = 0; i < ranks_per_node_; ++i) {
    if (!may_be_on(item, node * ranks_per_node_ + i)) return false;
  }
  return true;
}

// At the price of memory, in times of the objective.
double SearchState::beyond_memory(int rank, std::int64_t device, std::int64_t host) const {
  double sum = 0;
  const auto add = [&](std::int64_t used, std::int64_t has) {
    if (used <= has) return;
    const double scale = static_cast<double>(std::max<std::int64_t>(has, 1));
    sum += memory_price_.any + memory_price_.all * static_cast<double>(used - has) / scale;
  };
  add(device, problem_.device_bytes[rank]);
  add(host, problem_.host_bytes[rank]);
  return sum;
}

double SearchState::energy_with(int rank, const double* time, double sign, std::int64_t device,
                                std::int64_t host) const {
  return energy_at(
      rank, [&](int k) { return load(rank, k) + sign * time[k]; }, device_[rank] + device,
      host_[rank] + host);
}

// As energy_with, in loops over ranks that compile to vector instructions.
void SearchState::energies_with(int begin, int end, const double* time, std::int64_t device,
                                std::int64_t host) {
  const int count = end - begin;
  double* energy = &energies_[begin];
  if (count == 1) {
    *energy = energy_with(begin, time, 1, device, host);
    return;
  }
  double* power = powers_.data();
  for (int i = 0; i < count; ++i) {
    const int rank = begin + i;
    energy[i] = memory_penalty(rank, device_[rank] + device, host_[rank] + host);
  }
  for (int k = 0; k < num_phases_; ++k) {
    const double* load = &load_[static_cast<std::size_t>(k) * num_ranks_ + begin];
    const double more = time[k], inverse = inverse_target_[k], weight = weight_[k];
    for (int i = 0; i < count; ++i) {
      const double ratio = (load[i] + more) * inverse;
      power[i] = ratio < kMostRatio ? ratio : kMostRatio;
    }
    for (int doubling = 0; doubling < doublings_; ++doubling) {
      for (int i = 0; i < count; ++i) power[i] *= power[i];
    }
    for (int i = 0; i < count; ++i) energy[i] += weight * power[i];
  }
}

void SearchState::refresh_ranks(int begin, int end) {
  energies_with(begin, end, no_time_.data(), 0, 0);
  for (int rank = begin; rank < end; ++rank) {
    total_energy_ -= energy_[rank];
    energy_[rank] = energies_[rank];
    total_energy_ += energy_[rank];
  }
}

double SearchState::energy_with_swap(int rank, const double* out, const Candidate& out_candidate,
                                     const double* in, const Candidate& in_candidate) const {
  const MemoryRun& leaves = out_candidate.memory.front();
  const MemoryRun& comes = in_candidate.memory.front();
  return energy_at(
      rank, [&](int k) { return load(rank, k) - out[k] + in[k]; },
      device_[rank] - leaves.device_bytes + comes.device_bytes,
      host_[rank] - leaves.host_bytes + comes.host_bytes);
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
  add_block(item, choice_[item], from, -1);
  erase(on_rank_[from], item, block);
  blocks_[item][block] = to;
  add_block(item, choice_[item], to, 1);
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

std::vector<double> SearchState::slowest() const {
  std::vector<double> longest(num_phases_, 0.0);
  for (int rank = 0; rank < num_ranks_; ++rank) {
    for (int k = 0; k < num_phases_; ++k) longest[k] = std::max(longest[k], load(rank, k));
  }
  return longest;
}

void SearchState::refresh_energy(int doublings) {
  set_targets(slowest(), doublings);
}

void SearchState::set_targets(std::vector<double> targets, int doublings) {
  doublings_ = doublings;
  const double p = static_cast<double>(1 << doublings);
  penalty_ = uniform_ + 1e-6;
  for (int k = 0; k < num_phases_; ++k) {
    const double target = std::max(targets[k], 1e-9);
    penalty_ += target;
    inverse_target_[k] = 1 / target;
    double sum = 0;
    for (int rank = 0; rank < num_ranks_; ++rank) {
      sum += power(load(rank, k) / target);
    }
    const double mean = std::max(sum, 1.0) / num_ranks_;
    weight_[k] = target * std::pow(mean, 1 / p - 1) / (p * num_ranks_);
  }
  refresh_ranks(0, num_ranks_);
  total_energy_ = std::accumulate(energy_.begin(), energy_.end(), 0.0);  // exactly, again
}

double SearchState::objective() const {
  const std::vector<double> longest = slowest();
  return std::accumulate(longest.begin(), longest.end(), uniform_);
}

double SearchState::room_with(int rank, const MemoryRun& more) const {
  const auto part = [](std::int64_t used, std::int64_t has) {
    return static_cast<double>(has - used) / static_cast<double>(std::max<std::int64_t>(has, 1));
  };
  return std::min(part(device_[rank] + more.device_bytes, problem_.device_bytes[rank]),
                  part(host_[rank] + more.host_bytes, problem_.host_bytes[rank]));
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
