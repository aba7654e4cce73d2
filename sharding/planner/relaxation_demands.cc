#include <cassert>
#include <functional>
#include <numeric>
#include <span>

#include "sharding/planner/relaxation.h"

namespace serrate {
namespace {

constexpr std::size_t kMostApart = 600;  // demands, when nodes are told apart

bool is_somewhere(const Candidate& c) {
  return c.scope == BlockScope::kRank || c.scope == BlockScope::kNode;
}

PhaseSums phases_of(const Candidate& c, const ShardEstimate& e, PlannerEstimator estimator,
                    PlannerObjective objective) {
  if (objective == PlannerObjective::kMaxRank) return {e.total(estimator)};
  const PhaseTimes times = phase_times(estimator, c.type, e);
  const double exchange = std::accumulate(times.begin() + 2, times.end(), 0.0);
  // TorchRec's model has the exchanges of each sharding type one after another.
  const bool apart = estimator == PlannerEstimator::kTorchRec && c.scope != BlockScope::kRank;
  return {times[0] + times[1], apart ? 0 : exchange, apart ? exchange : 0};
}

double over(std::int64_t bytes, double most) {
  return static_cast<double>(bytes) / most;
}

}  // namespace

Relaxation::Relaxation(const PlannerProblem& problem, PlannerObjective objective, Nodes nodes)
    : problem_(problem),
      most_device_(
          std::max(static_cast<double>(*std::ranges::max_element(problem.device_bytes)), 1.0)),
      most_host_(
          std::max(static_cast<double>(*std::ranges::max_element(problem.host_bytes)), 1.0)) {
  const bool one_phase = objective == PlannerObjective::kMaxRank;
  if (nodes == Nodes::kApartIfFew && one_phase && problem.num_nodes() <= kMostGroups) {
    num_groups_ = problem.num_nodes();
    if (count_demands() > kMostApart) num_groups_ = 1;
  }
  add_demands(objective);
  break_symmetry();
}

// Whether blocks of the candidate may be on ranks of the group.
bool Relaxation::may_be_in(const PlannerItem& item, const Candidate& c, int group) const {
  if (item.ranks.empty()) return true;
  const auto there = std::ranges::count(item.ranks, group, [&](int r) { return group_of(r); });
  const bool whole_node = c.scope == BlockScope::kNode && num_groups_ > 1;
  return whole_node ? there == problem_.ranks_per_node : there > 0;
}

// All ways to spread the blocks over the groups; one without any for what is nowhere in particular.
std::vector<Relaxation::Blocks> Relaxation::block_counts(const PlannerItem& item,
                                                         const Candidate& c) const {
  if (!is_somewhere(c)) return {Blocks{}};
  if (num_groups_ == 1) return {Blocks{c.num_blocks}};
  const bool in_one = c.type == ShardingType::kTableColumnWise;
  std::vector<std::pair<Blocks, int>> partial{{Blocks{}, c.num_blocks}};  // and how many are left
  for (int g = 0; g < num_groups_; ++g) {
    std::vector<std::pair<Blocks, int>> longer;
    for (const auto& [blocks, left] : partial) {
      for (int b = may_be_in(item, c, g) ? left : 0; b >= 0; --b) {
        if (in_one && b != 0 && b != left) continue;
        longer.emplace_back(blocks, left - b);
        longer.back().first[g] = b;
      }
    }
    partial = std::move(longer);
  }
  std::vector<Blocks> all;
  for (const auto& [blocks, left] : partial) {
    if (left == 0) all.push_back(blocks);
  }
  return all;
}

std::size_t Relaxation::count_demands() const {
  std::size_t count = 0;
  for (const PlannerItem& item : problem_.items) {
    for (const Candidate& c : item.candidates) {
      if (is_somewhere(c) && c.num_blocks > 8) return kMostApart + 1;
      count += block_counts(item, c).size();
    }
  }
  return count;
}

void Relaxation::add_demands(PlannerObjective objective) {
  for (int g = 0; g < num_groups_; ++g) {
    for (int k = 0; k < kLoads; ++k) {
      rows_.push_back({g, k, k < kPhases ? 1 : mean_memory(g, k)});
    }
  }
  for (int i = 0; i < std::ssize(problem_.items); ++i) {
    const PlannerItem& item = problem_.items[i];
    const auto first = std::ssize(all_.demands);
    for (int c = 0; c < std::ssize(item.candidates); ++c) {
      for (const Blocks& blocks : block_counts(item, item.candidates[c])) {
        const std::size_t first_part = parts_.size();
        Demand d = demand_of(i, c, blocks, objective);
        // Twins, such as row_wise and table_row_wise on one node, would only be told apart in vain.
        if (std::any_of(all_.demands.begin() + first, all_.demands.end(),
                        [&](const Demand& other) { return is_twin(d, other); })) {
          parts_.resize(first_part);
          continue;
        }
        all_.demands.push_back(d);
      }
    }
    all_.item_ends.push_back(all_.demands.size());
  }
  keep_rows();
}

Demand Relaxation::demand_of(int item, int candidate, const Blocks& blocks,
                             PlannerObjective objective) {
  const Candidate& c = problem_.items[item].candidates[candidate];
  Demand d{.item = item,
           .candidate = candidate,
           .blocks = blocks,
           .uniform = c.everywhere.total(problem_.estimator)};
  const PhaseSums longest = phases_of(c, c.time, problem_.estimator, objective);
  const bool alike = c.ranks_per_block == problem_.world_size && c.full_ranks == c.ranks_per_block;
  if (alike) {
    d.uniform += c.num_blocks * std::accumulate(longest.begin(), longest.end(), 0.0);
  } else {
    d.longest = longest;
  }
  d.first_part = parts_.size();
  add_parts(c, d);
  d.end_part = parts_.size();

  const PhaseSums work = phases_of(c, c.work, problem_.estimator, objective);
  const double ranks = static_cast<double>(problem_.world_size) / num_groups_;
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    const auto [group, load, has] = rows_[j];
    if (load < kPhases && alike) continue;
    if (load < kPhases && (is_somewhere(c) || num_groups_ == 1)) {
      const int here = is_somewhere(c) ? blocks[group] : c.num_blocks;
      d.mean[j] = work[load] * here / c.num_blocks / ranks;
      continue;
    }
    // The mean of all in the group; ranks that take less than the first are taken to need no time.
    for (std::size_t p = d.first_part; p < d.end_part; ++p) {
      if (parts_[p].group != group) continue;
      d.mean[j] += parts_[p].per_rank * parts_[p].takes[load] / has;
    }
  }
  return d;
}

// What a rank of the group has, on average, in parts of what a rank has at the most.
double Relaxation::mean_memory(int group, int load) const {
  const auto& bytes = load == kPhases ? problem_.device_bytes : problem_.host_bytes;
  const auto ranks = problem_.world_size / num_groups_;
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(group) * ranks;
  const double sum = std::max(std::accumulate(begin, begin + ranks, 0.0), 1.0);
  return sum / ranks / (load == kPhases ? most_device_ : most_host_);
}

void Relaxation::add_parts(const Candidate& c, const Demand& d) {
  const PlannerItem& item = problem_.items[d.item];
  const double ranks = static_cast<double>(problem_.world_size) / num_groups_;
  const auto add = [&](int group, double count, const MemoryRun& run, bool is_full) {
    Part part{.group = group, .per_rank = count / ranks};
    if (is_full) std::copy(d.longest.begin(), d.longest.end(), part.takes.begin());
    part.takes[kPhases] = over(run.device_bytes, most_device_);
    part.takes[kPhases + 1] = over(run.host_bytes, most_host_);
    parts_.push_back(part);
  };
  // The last ranks of all have fewer rows, if any: where nodes are alike but for that, all are
  // taken to have as few.
  std::vector<MemoryRun> memory = c.memory;
  if (num_groups_ > 1 && c.scope == BlockScope::kAll) {
    for (const MemoryRun& run : c.memory) {
      memory.front().device_bytes = std::min(memory.front().device_bytes, run.device_bytes);
      memory.front().host_bytes = std::min(memory.front().host_bytes, run.host_bytes);
    }
    memory.front().end = problem_.world_size;
    memory.resize(1);
  }
  int begin = 0;
  for (const MemoryRun& run : memory) {
    for (const int end : {std::min(run.end, c.full_ranks), run.end}) {
      if (end <= begin) continue;
      for (int g = 0; g < num_groups_; ++g) {
        int count = 0;
        if (is_somewhere(c)) {
          count = (end - begin) * d.blocks[g];
        } else {
          for (int i = begin; i < end; ++i) {
            const int rank = c.scope == BlockScope::kFixed ? item.ranks[i] : i;
            if (group_of(rank) == g) count += c.num_blocks;
          }
        }
        if (count > 0) add(g, count, run, end <= c.full_ranks);
      }
      begin = end;
    }
  }
}

// They take the same of everything that the bound counts, and of the memory of the ranks that they
// are on: what fits, and what is surely on all ranks, is then the same for both. That they take the
// same on the mean is too little: the rows of a short row_wise table are on a few ranks, and two
// blocks of a grid may be on one node.
bool Relaxation::is_twin(const Demand& a, const Demand& b) const {
  const auto candidate = [&](const Demand& d) -> const Candidate& {
    return problem_.items[d.item].candidates[d.candidate];
  };
  if (candidate(a).ranks_per_block != candidate(b).ranks_per_block ||
      candidate(a).memory != candidate(b).memory) {
    return false;
  }
  const auto parts = [&](const Demand& d) {
    return std::span(parts_).subspan(d.first_part, d.end_part - d.first_part);
  };
  return a.uniform == b.uniform && a.longest == b.longest && a.mean == b.mean &&
         std::ranges::equal(parts(a), parts(b));
}

// Leaves out the rows that no placement can break, and sets the scale of memory.
void Relaxation::keep_rows() {
  std::vector<LoadRow> kept;
  std::vector<std::size_t> columns;
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    double most = 0;
    std::size_t i = 0;
    for (const std::size_t end : all_.item_ends) {
      double most_of_item = 0;
      for (; i < end; ++i) most_of_item = std::max(most_of_item, all_.demands[i].mean[j]);
      most += most_of_item;
    }
    if (most <= (rows_[j].load < kPhases ? 0 : 1)) continue;
    kept.push_back(rows_[j]);
    columns.push_back(j);
  }
  rows_ = std::move(kept);
  assert(std::ssize(rows_) <= kMostRows - kMostCuts);
  for (Demand& d : all_.demands) {
    Rows mean{};
    for (std::size_t j = 0; j < columns.size(); ++j) mean[j] = d.mean[columns[j]];
    d.mean = mean;
  }
  Rows prices{};
  for (std::size_t j = 0; j < rows_.size(); ++j) {
    prices[j] = rows_[j].load < kPhases ? 1.0 / num_groups_ : 0;
  }
  // In ms, for memory to weigh about what time does.
  const int num_rows = static_cast<int>(rows_.size());
  all_.transpose_means(num_rows);
  scale_ = std::max(solution(prices, num_rows, all_, nullptr).cost, 1e-12);
  for (Demand& d : all_.demands) {
    for (int j = 0; j < num_rows; ++j) {
      if (rows_[j].load >= kPhases) d.mean[j] *= scale_;
    }
  }
}

// Where nodes are alike, they can change places: one item has no more blocks in a node than in the
// one before. It is the one that takes the most.
void Relaxation::break_symmetry() {
  canonical_.assign(all_.demands.size(), true);
  const auto alike = [](const std::vector<std::int64_t>& bytes) {
    return std::ranges::count(bytes, bytes.front()) == std::ssize(bytes);
  };
  const auto is_free = [&](const PlannerItem& item) {
    return item.ranks.empty() && std::ranges::all_of(item.candidates, [&](const Candidate& c) {
             return c.scope != BlockScope::kAll || c.full_ranks == problem_.world_size;
           });
  };
  if (num_groups_ == 1 || !alike(problem_.device_bytes) || !alike(problem_.host_bytes) ||
      !std::ranges::all_of(problem_.items, is_free)) {
    return;
  }
  std::size_t begin = 0, most_begin = 0, most_end = 0;
  double most = 0;
  for (const std::size_t end : all_.item_ends) {
    double least = kUnbounded;
    for (std::size_t i = begin; i < end; ++i) {
      least = std::min(least, mean_time(all_.demands[i]));
    }
    if (least > most) {
      most = least;
      most_begin = begin;
      most_end = end;
    }
    begin = end;
  }
  for (std::size_t i = most_begin; i < most_end; ++i) {
    const Blocks& blocks = all_.demands[i].blocks;
    canonical_[i] = std::ranges::is_sorted(blocks, std::greater<>());
  }
}

}  // namespace serrate
