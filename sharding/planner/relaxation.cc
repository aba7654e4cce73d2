#include "sharding/planner/relaxation.h"

#include <numeric>
#include <span>

namespace serrate {
namespace {

double sum_of(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0.0);
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

}  // namespace

Relaxation::Relaxation(const PlannerProblem& problem, PlannerObjective objective)
    : problem_(problem) {
  const std::int64_t most_device = *std::ranges::max_element(problem.device_bytes);
  const std::int64_t most_host = *std::ranges::max_element(problem.host_bytes);
  const double device = std::max(sum_of(problem.device_bytes), 1.0);
  const double host = std::max(sum_of(problem.host_bytes), 1.0);
  for (const PlannerItem& item : problem.items) {
    const auto first = std::ssize(all_.demands);
    for (const Candidate& c : item.candidates) {
      Demand d = demand_of(c, problem, objective);
      d.mean[kPhases] = static_cast<double>(c.total_device_bytes()) / device;
      d.mean[kPhases + 1] = static_cast<double>(c.total_host_bytes()) / host;
      d.first_part = parts_.size();
      add_parts(static_cast<int>(all_.item_ends.size()), c, d, most_device, most_host);
      d.end_part = parts_.size();
      // Twins, such as row_wise and table_row_wise on one node, would only be told apart in vain.
      if (std::any_of(all_.demands.begin() + first, all_.demands.end(),
                      [&](const Demand& other) { return is_twin(d, other); })) {
        parts_.resize(d.first_part);
        continue;
      }
      all_.names.emplace_back(static_cast<int>(all_.item_ends.size()),
                              static_cast<int>(&c - item.candidates.data()));
      all_.demands.push_back(d);
    }
    all_.item_ends.push_back(all_.demands.size());
  }
  // In ms, for memory to weigh about what time does.
  scale_ = std::max(solution({1, 1, 1}, kLoads, all_, nullptr).cost, 1e-12);
  for (Demand& d : all_.demands) {
    for (int j = kPhases; j < kLoads; ++j) d.mean[j] *= scale_;
  }
}

Box Relaxation::whole() const {
  Box box;
  box.high.fill(kUnbounded);
  for (const PlannerItem& item : problem_.items) {
    box.allowed.emplace_back(item.candidates.size(), false);
  }
  for (const auto& [item, candidate] : all_.names) box.allowed[item][candidate] = true;
  return box;
}

// They take the same of everything that the bound counts.
bool Relaxation::is_twin(const Demand& a, const Demand& b) const {
  const auto parts = [&](const Demand& d) {
    return std::span(parts_).subspan(d.first_part, d.end_part - d.first_part);
  };
  return a.uniform == b.uniform && a.longest == b.longest && a.mean == b.mean &&
         std::ranges::equal(parts(a), parts(b), [](const Part& p, const Part& q) {
           return p.per_rank == q.per_rank && p.takes == q.takes;
         });
}

Demand Relaxation::demand_of(const Candidate& c, const PlannerProblem& problem,
                             PlannerObjective objective) {
  Demand d{.uniform = c.everywhere.total(problem.estimator)};
  const PhaseSums longest = phases_of(c, c.time, problem.estimator, objective);
  if (c.ranks_per_block == problem.world_size && c.full_ranks == problem.world_size) {
    d.uniform += c.num_blocks * std::accumulate(longest.begin(), longest.end(), 0.0);
  } else {
    const PhaseSums work = phases_of(c, c.work, problem.estimator, objective);
    d.longest = longest;
    for (int k = 0; k < kPhases; ++k) d.mean[k] = work[k] / problem.world_size;
  }
  return d;
}

void Relaxation::add_parts(int item, const Candidate& c, const Demand& d, std::int64_t most_device,
                           std::int64_t most_host) {
  const auto of = [](std::int64_t bytes, std::int64_t most) {
    return static_cast<double>(bytes) / static_cast<double>(std::max<std::int64_t>(most, 1));
  };
  int begin = 0;
  for (const MemoryRun& run : c.memory) {
    for (const int end : {std::min(run.end, c.full_ranks), run.end}) {
      if (end <= begin) continue;
      Part part{.item = item,
                .per_rank = static_cast<double>(end - begin) * c.num_blocks / problem_.world_size};
      if (end <= c.full_ranks) std::copy(d.longest.begin(), d.longest.end(), part.takes.begin());
      part.takes[kPhases] = of(run.device_bytes, most_device);
      part.takes[kPhases + 1] = of(run.host_bytes, most_host);
      parts_.push_back(part);
      begin = end;
    }
  }
}

double Relaxation::least_uniform(const Box& box) const {
  double sum = 0;
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    double least = kUnbounded;
    for (; i < end; ++i) {
      const auto [item, candidate] = all_.names[i];
      if (box.allowed[item][candidate]) least = std::min(least, all_.demands[i].uniform);
    }
    sum += least;
  }
  return sum;
}

// Those whose shards are not longer than the slowest rank of a phase may be.
Choices Relaxation::choices_in(const Box& box) const {
  Choices some;
  set_room(box, some);
  std::size_t i = 0;
  for (const std::size_t end : all_.item_ends) {
    for (; i < end; ++i) {
      Demand d = all_.demands[i];
      const auto [item, candidate] = all_.names[i];
      bool fits = box.allowed[item][candidate];
      for (int k = 0; k < kPhases; ++k) fits &= d.longest[k] <= box.high[k] * (1 + kBoundSlack);
      if (!fits) continue;
      for (std::size_t c = 0; c < box.cuts.size(); ++c) {
        d.mean[kLoads + c] = mean_of(d, some, box.cuts[c]);
      }
      some.demands.push_back(d);
      some.names.push_back(all_.names[i]);
    }
    some.item_ends.push_back(some.demands.size());
  }
  some.chosen.assign(some.demands.size(), 0.0);
  return some;
}

// Takes out the candidates that are too long for the box or do not fit it. False when an item is
// left with none: nothing in the box is below `known`.
bool Relaxation::take_out(Box& box, double known) const {
  for (std::size_t i = 0; i < all_.demands.size(); ++i) {
    const auto [item, candidate] = all_.names[i];
    for (int k = 0; k < kPhases; ++k) {
      if (all_.demands[i].longest[k] > box.high[k] * (1 + kBoundSlack)) {
        box.allowed[item][candidate] = false;
      }
    }
  }
  if (!take_out_misfits(problem_, box.allowed)) return true;
  box.value = std::max(box.value, known);
  return false;
}

// Takes out the candidates with which nothing in the box is below `known`, at the best prices.
bool Relaxation::price_out(Box& box, const Choices& choices, double known) const {
  bool found = false;
  std::size_t begin = 0;
  for (const std::size_t end : choices.item_ends) {
    double least = kUnbounded;
    std::vector<double> costs;
    for (std::size_t i = begin; i < end; ++i) {
      const Demand& d = choices.demands[i];
      double cost = d.uniform;
      for (int j = 0; j < box.num_rows(); ++j) cost += box.prices[j] * d.mean[j];
      costs.push_back(cost);
      least = std::min(least, cost);
    }
    for (std::size_t i = begin; i < end; ++i) {
      if (box.proved + costs[i - begin] - least <= known * (1 + kBoundSlack)) continue;
      box.allowed[choices.names[i].first][choices.names[i].second] = false;
      found = true;
    }
    begin = end;
  }
  return found;
}

}  // namespace serrate
