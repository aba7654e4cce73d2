#include "sharding/planner/kernel_sets.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <queue>

namespace serrate {
namespace {

bool is_on_device(ComputeKernel kernel) {
  return kernel == ComputeKernel::kDense || kernel == ComputeKernel::kFused;
}

// Moving the rows of an item to host memory: what it costs and what it frees.
struct Saving {
  int item = 0;
  ComputeKernel kernel = ComputeKernel::kFusedUvm;
  double ms = 0;     // more, summed over all ranks
  double bytes = 0;  // of device memory, summed over all ranks
};

// A set that is chosen of the savings before `next`.
struct Partial {
  int next = 0;
  double needed = 0;  // to be freed yet
  double ms = 0;
  double least_ms = 0;  // of all that it can become
  std::vector<int> chosen = {};
  friend bool operator<(const Partial& a, const Partial& b) { return a.least_ms > b.least_ms; }
};

class KernelSets {
 public:
  KernelSets(const PlannerProblem& problem, const PlannerBound& bound, double known, double longest)
      : problem_(problem), bound_(bound), longest_(longest) {
    for (int i = 0; i < std::ssize(problem.items); ++i) add_savings(i);
    std::ranges::stable_sort(savings_, {}, [](const Saving& s) { return s.ms / s.bytes; });
    most_ms_ = known * problem_.world_size - on_devices_;
  }

  // The cheapest sets with which the items take so much of the devices' memory, by best-first
  // search.
  std::vector<Allowed> find(double filled, std::size_t most_sets) const {
    std::vector<Allowed> sets;
    const double has =
        std::accumulate(problem_.device_bytes.begin(), problem_.device_bytes.end(), 0.0);
    const double needed = device_bytes_ - filled * has;
    if (needed <= 0) return sets;
    std::priority_queue<Partial> open;
    add({.needed = needed}, open);
    for (int i = 0; i < kMostTries && !open.empty() && sets.size() < most_sets; ++i) {
      const Partial top = open.top();
      open.pop();
      if (top.needed <= 0) {
        if (is_minimal(top)) sets.push_back(allowed(top.chosen));
        continue;
      }
      Partial without = top;
      ++without.next;
      add(std::move(without), open);
      const Saving& s = savings_[top.next];
      const auto is_same = [&](int j) { return savings_[j].item == s.item; };
      if (std::ranges::any_of(top.chosen, is_same)) continue;
      Partial with = top;
      with.chosen.push_back(with.next++);
      with.needed -= s.bytes;
      with.ms += s.ms;
      add(std::move(with), open);
    }
    return sets;
  }

 private:
  static constexpr int kMostTries = 5'000;

  // The cheapest candidate on the device or of a kernel in host memory.
  const Candidate* cheapest(const PlannerItem& item, std::optional<ComputeKernel> kernel) const {
    const Candidate* best = nullptr;
    for (const Candidate& c : item.candidates) {
      if (kernel ? c.kernel != *kernel : !is_on_device(c.kernel)) continue;
      if (kernel && is_long(c)) continue;
      if (!best || cost_of(c) < cost_of(*best)) best = &c;
    }
    return best;
  }
  bool is_long(const Candidate& c) const { return c.time.total(problem_.estimator) > longest_; }
  // With the price of its memory.
  double cost_of(const Candidate& c) const {
    const auto bytes = static_cast<double>(c.total_device_bytes());
    return ms_of(c) + problem_.world_size * bound_.device_price * bytes;
  }
  double ms_of(const Candidate& c) const {
    return problem_.world_size * c.everywhere.total(problem_.estimator) +
           c.work.total(problem_.estimator);
  }

  void add_savings(int i) {
    const PlannerItem& item = problem_.items[i];
    const Candidate* on_device = cheapest(item, {});
    if (!on_device) return;
    const auto bytes = static_cast<double>(on_device->total_device_bytes());
    device_bytes_ += bytes;
    on_devices_ += ms_of(*on_device);
    for (const auto kernel : {ComputeKernel::kFusedUvm, ComputeKernel::kFusedUvmCaching}) {
      const Candidate* c = cheapest(item, kernel);
      if (!c) continue;
      const double saved = bytes - static_cast<double>(c->total_device_bytes());
      if (saved > 0) savings_.push_back({i, kernel, ms_of(*c) - ms_of(*on_device), saved});
    }
  }

  void add(Partial partial, std::priority_queue<Partial>& open) const {
    partial.least_ms = partial.ms + least(partial.next, partial.needed);
    if (partial.least_ms < most_ms_) open.push(std::move(partial));
  }

  // What it takes at least to free so much, if savings came apart.
  double least(int next, double needed) const {
    double ms = 0;
    if (needed <= 0) return ms;
    for (; next < std::ssize(savings_); ++next) {
      const Saving& s = savings_[next];
      if (s.bytes >= needed) return ms + s.ms * needed / s.bytes;
      needed -= s.bytes;
      ms += s.ms;
    }
    return std::numeric_limits<double>::infinity();
  }

  // It cannot do without a saving.
  bool is_minimal(const Partial& set) const {
    return std::ranges::none_of(set.chosen,
                                [&](int j) { return savings_[j].bytes <= -set.needed; });
  }

  Allowed allowed(const std::vector<int>& chosen) const {
    Allowed all;
    for (const PlannerItem& item : problem_.items) {
      auto& of_item = all.emplace_back();
      const bool any = std::ranges::any_of(item.candidates, is_on_device, &Candidate::kernel);
      for (const Candidate& c : item.candidates) of_item.push_back(!any || is_on_device(c.kernel));
    }
    for (const int j : chosen) {
      const auto& candidates = problem_.items[savings_[j].item].candidates;
      for (std::size_t c = 0; c < candidates.size(); ++c) {
        all[savings_[j].item][c] =
            candidates[c].kernel == savings_[j].kernel && !is_long(candidates[c]);
      }
    }
    return all;
  }

  const PlannerProblem& problem_;
  const PlannerBound& bound_;
  double longest_;         // ms that a shard in host memory may take
  double on_devices_ = 0;  // ms of all items on the devices, summed over all ranks
  double most_ms_ = 0;     // more, for a better plan
  double device_bytes_ = 0;
  std::vector<Saving> savings_;
};

}  // namespace

std::vector<Allowed> kernel_sets(const PlannerProblem& problem, const PlannerBound& bound,
                                 double known) {
  constexpr double kLoose = 0.97;  // of the devices' memory
  std::vector<Allowed> sets;
  for (const double part : {1.0, 0.6, 0.35}) {
    const KernelSets all(problem, bound, known, part * known);
    const auto add = [&](double filled, std::size_t most_sets) {
      for (Allowed& set : all.find(filled, most_sets)) {
        if (std::ranges::find(sets, set) == sets.end()) sets.push_back(std::move(set));
      }
    };
    add(1, 5);
    add(kLoose, 3);
    if (known == std::numeric_limits<double>::infinity()) break;  // parts of it are the same
  }
  return sets;
}

}  // namespace serrate
