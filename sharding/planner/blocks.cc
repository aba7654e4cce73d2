#include <bit>

#include "serrate/error.h"
#include "sharding/planner/state.h"

namespace serrate {

double SearchState::cheapest_blocks(int item, int choice, std::span<const int> ranks,
                                    std::vector<int>& blocks) {
  const Candidate& c = candidate(item, choice);
  const double uniform = choice_of(item, choice).uniform;
  const std::span<const int> all(places_);
  blocks.clear();
  switch (c.scope) {
    case BlockScope::kAll:
    case BlockScope::kFixed:
      return uniform + block_change(item, choice, 0);
    case BlockScope::kNode:
      return uniform + spread_blocks(item, choice, all.first(num_nodes()), blocks);
    case BlockScope::kRank:
      break;
  }
  if (c.type == ShardingType::kTableColumnWise && c.num_blocks > 1) {
    return uniform + blocks_in_one_node(item, choice, blocks);
  }
  return uniform + spread_blocks(item, choice, ranks.empty() ? all : ranks, blocks);
}

bool SearchState::fits_everywhere(const MemoryRun& more) const {
  for (int rank = 0; rank < num_ranks_; ++rank) {
    if (device_[rank] + more.device_bytes > problem_.device_bytes[rank] ||
        host_[rank] + more.host_bytes > problem_.host_bytes[rank]) {
      return false;
    }
  }
  return true;
}

// What the energy would change by with one block more on `place`.
double SearchState::block_change(int item, int choice, int place) {
  const std::vector<double>& time = choice_of(item, choice).time;
  if (time.empty() && fits_everywhere(candidate(item, choice).memory.front())) {
    evaluations_ += num_ranks_ / 8;
    return 0;
  }
  double change = 0;
  int visited = 0;
  for_each_run(
      item, choice, place, [&](int begin, int end, std::int64_t device, std::int64_t host) {
        visited += end - begin;
        if (!time.empty()) energies_with(begin, end, time.data(), device, host);
        for (int rank = begin; rank < end; ++rank) {
          change += time.empty()
                        ? memory_penalty(rank, device_[rank] + device, host_[rank] + host) -
                              memory_penalty(rank, device_[rank], host_[rank])
                        : energies_[rank] - energy_[rank];
        }
      });
  evaluations_ += time.empty() ? visited / 8 : visited;
  return change;
}

double SearchState::spread_blocks(int item, int choice, std::span<const int> places,
                                  std::vector<int>& blocks) {
  constexpr std::size_t kFew = 4;  // a quarter of the ranks at most is looked at one by one
  const Candidate& c = candidate(item, choice);
  const bool on_rank = c.scope == BlockScope::kRank;
  if (!problem_.items[item].ranks.empty()) {
    allowed_.clear();
    for (const int place : places) {
      if (on_rank ? may_be_on(item, place) : may_be_on_node(item, place)) allowed_.push_back(place);
    }
    places = allowed_;
  }
  changes_.clear();
  if (on_rank && places.size() > places_.size() / kFew) {
    const MemoryRun& memory = c.memory.front();
    energies_with(0, num_ranks_, choice_of(item, choice).time.data(), memory.device_bytes,
                  memory.host_bytes);
    for (const int place : places) changes_.push_back(energies_[place] - energy_[place]);
    evaluations_ += std::ssize(places);
  } else {
    for (const int place : places) changes_.push_back(block_change(item, choice, place));
  }
  double sum = 0;
  for (int b = 0; b < c.num_blocks; ++b) {
    const auto least = std::ranges::min_element(changes_);
    if (least == changes_.end() || *least == kInfinity) {
      sum = kInfinity;
      break;
    }
    sum += *least;
    const int at = places[least - changes_.begin()];
    blocks.push_back(at);
    add_block(item, choice, at, 1);  // for those that follow
    if (b + 1 < c.num_blocks) *least = block_change(item, choice, at);
  }
  for (const int place : blocks) add_block(item, choice, place, -1);
  return sum;
}

double SearchState::blocks_in_one_node(int item, int choice, std::vector<int>& blocks) {
  double best = kInfinity;
  std::vector<int> best_blocks;
  for (int node = 0; node < num_nodes(); ++node) {
    const std::span<const int> ranks(&places_[node * ranks_per_node_], ranks_per_node_);
    blocks.clear();
    const double change = spread_blocks(item, choice, ranks, blocks);
    if (change < best) {
      best = change;
      best_blocks = blocks;
    }
  }
  blocks = best_blocks;
  return best;
}

bool SearchState::divide_anew(int rank_a, int rank_b, std::span<const OnRank> blocks,
                              double least_gain) {
  constexpr std::uint32_t kWaysPerEvaluation = 4;  // in time
  check(blocks.size() < 32, "too many blocks to try all ways to divide them");
  struct Rank {
    int rank;
    std::vector<double> load;
    std::int64_t device, host;
  };
  struct Block {
    bool is_on_a;
    const double* time;
    std::int64_t device, host;
  };
  const auto rank_of = [&](int rank) {
    Rank r{rank, {}, device_[rank], host_[rank]};
    for (int k = 0; k < num_phases_; ++k) r.load.push_back(load(rank, k));
    return r;
  };
  Rank a = rank_of(rank_a), b = rank_of(rank_b);
  std::vector<Block> movable;
  for (const auto [item, block] : blocks) {
    const MemoryRun& memory = candidate(item, choice_[item]).memory.front();
    movable.push_back({blocks_[item][block] == rank_a, choice_of(item, choice_[item]).time.data(),
                       memory.device_bytes, memory.host_bytes});
  }
  const auto move = [&](const Block& block, Rank& from, Rank& to) {
    for (int k = 0; k < num_phases_; ++k) {
      from.load[k] -= block.time[k];
      to.load[k] += block.time[k];
    }
    from.device -= block.device;
    from.host -= block.host;
    to.device += block.device;
    to.host += block.host;
  };
  const auto energy_of = [&](const Rank& r) {
    return energy_at(r.rank, [&](int k) { return r.load[k]; }, r.device, r.host);
  };
  double best = energy_[rank_a] + energy_[rank_b] - least_gain;
  std::uint32_t moved = 0, best_moved = 0;  // a bit for each block
  const std::uint32_t num_ways = 1U << blocks.size();
  // In the order of Gray's code one block moves from each way to the next.
  for (std::uint32_t way = 1; way < num_ways; ++way) {
    const int i = std::countr_zero(way);
    const bool is_on_a = movable[i].is_on_a != static_cast<bool>(moved >> i & 1);
    move(movable[i], is_on_a ? a : b, is_on_a ? b : a);
    moved ^= 1U << i;
    double energy = energy_of(a);
    if (energy < best) energy += energy_of(b);
    if (energy >= best) continue;
    best = energy;
    best_moved = moved;
  }
  evaluations_ += num_ways / kWaysPerEvaluation;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (best_moved >> i & 1) {
      move_block(blocks[i].item, blocks[i].block, movable[i].is_on_a ? rank_b : rank_a);
    }
  }
  return best_moved != 0;
}

}  // namespace serrate
