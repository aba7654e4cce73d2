#include "sharding/planner/misfits.h"

#include <algorithm>
#include <vector>

namespace serrate {
namespace {

struct Bytes {
  std::int64_t device = 0;
  std::int64_t host = 0;
};

class Misfits {
 public:
  Misfits(const PlannerProblem& problem, Allowed& allowed)
      : problem_(problem),
        allowed_(allowed),
        taken_(problem.world_size),
        surely_(problem.items.size()),
        least_memory_{*std::ranges::min_element(problem.device_bytes),
                      *std::ranges::min_element(problem.host_bytes)} {
    for (std::size_t i = 0; i < problem.items.size(); ++i) add_surely(i, 1);
  }

  std::optional<Misfit> take_out() {
    for (bool dropped = true; dropped;) {
      dropped = false;
      for (std::size_t i = 0; i < problem_.items.size(); ++i) {
        const PlannerItem& item = problem_.items[i];
        add_surely(i, -1);
        std::vector<bool> fits = allowed_[i];
        for (std::size_t c = 0; c < fits.size(); ++c) {
          if (fits[c]) fits[c] = may_fit(item, item.candidates[c]);
        }
        if (std::ranges::find(fits, true) == fits.end()) return misfit(static_cast<int>(i));
        if (fits != allowed_[i]) {
          dropped = true;
          allowed_[i] = std::move(fits);
          surely_[i].clear();
        }
        add_surely(i, 1);
      }
    }
    return {};
  }

 private:
  Misfit misfit(int item) const {
    Misfit misfit{.item = item};
    for (const Bytes& taken : taken_) {
      misfit.device_bytes = std::max(misfit.device_bytes, taken.device);
      misfit.host_bytes = std::max(misfit.host_bytes, taken.host);
    }
    return misfit;
  }

  // What each rank has to hold of an item, whatever its candidate.
  std::vector<Bytes> surely(std::size_t i) const {
    const PlannerItem& item = problem_.items[i];
    for (std::size_t j = 0; j < item.candidates.size(); ++j) {
      const BlockScope scope = item.candidates[j].scope;
      const bool moves =
          scope == BlockScope::kRank || (scope == BlockScope::kNode && problem_.num_nodes() > 1);
      if (allowed_[i][j] && moves) return {};
    }
    std::vector<Bytes> least;  // of all candidates; a rank without a block of one holds nothing
    for (std::size_t j = 0; j < item.candidates.size(); ++j) {
      if (!allowed_[i][j]) continue;
      const Candidate& c = item.candidates[j];
      std::vector<Bytes> held(problem_.world_size);
      for_each_rank(item, c, 0, [&](int rank, Bytes bytes) {
        held[rank] = {c.num_blocks * bytes.device, c.num_blocks * bytes.host};
        return true;
      });
      if (least.empty()) least = held;
      for (std::size_t r = 0; r < held.size(); ++r) {
        least[r] = {std::min(least[r].device, held[r].device),
                    std::min(least[r].host, held[r].host)};
      }
    }
    return least;
  }

  void add_surely(std::size_t i, int sign) {
    if (sign > 0 && surely_[i].empty()) surely_[i] = surely(i);
    for (std::size_t r = 0; r < surely_[i].size(); ++r) {
      taken_[r].device += sign * surely_[i][r].device;
      taken_[r].host += sign * surely_[i][r].host;
      most_taken_.device = std::max(most_taken_.device, taken_[r].device);
      most_taken_.host = std::max(most_taken_.host, taken_[r].host);
    }
  }

  // Calls visit(rank, bytes) for the ranks of a block that is put on rank or node `place`, until it
  // returns false.
  template <typename Visit>
  bool for_each_rank(const PlannerItem& item, const Candidate& c, int place,
                     const Visit& visit) const {
    int i = 0;
    for (const MemoryRun& run : c.memory) {
      for (; i < run.end; ++i) {
        const int rank = c.scope == BlockScope::kFixed  ? item.ranks[i]
                         : c.scope == BlockScope::kNode ? place * problem_.ranks_per_node + i
                                                        : place + i;
        if (!visit(rank, Bytes{run.device_bytes, run.host_bytes})) return false;
      }
    }
    return true;
  }

  bool fits_on(const PlannerItem& item, const Candidate& c, int place) const {
    const bool confined = c.scope == BlockScope::kRank || c.scope == BlockScope::kNode;
    return for_each_rank(item, c, place, [&](int rank, Bytes bytes) {
      return taken_[rank].device + bytes.device <= problem_.device_bytes[rank] &&
             taken_[rank].host + bytes.host <= problem_.host_bytes[rank] &&
             (!confined || item.ranks.empty() || std::ranges::binary_search(item.ranks, rank));
    });
  }

  bool may_fit(const PlannerItem& item, const Candidate& c) const {
    const bool fits_anywhere = most_taken_.device + c.max_device_bytes() <= least_memory_.device &&
                               most_taken_.host + c.max_host_bytes() <= least_memory_.host &&
                               item.ranks.empty();
    if (fits_anywhere) return true;
    const int num_places = c.scope == BlockScope::kRank   ? problem_.world_size
                           : c.scope == BlockScope::kNode ? problem_.num_nodes()
                                                          : 1;
    for (int place = 0; place < num_places; ++place) {
      if (fits_on(item, c, place)) return true;
    }
    return false;
  }

  const PlannerProblem& problem_;
  Allowed& allowed_;
  std::vector<Bytes> taken_;                // [world_size], for sure
  std::vector<std::vector<Bytes>> surely_;  // of it, by item; empty for none
  Bytes least_memory_;                      // that a rank has
  Bytes most_taken_;                        // of a rank, at any time so far
};

}  // namespace

std::optional<Misfit> take_out_misfits(const PlannerProblem& problem, Allowed& allowed) {
  return Misfits(problem, allowed).take_out();
}

std::optional<Misfit> drop_misfits(PlannerProblem& problem) {
  Allowed allowed;
  for (const PlannerItem& item : problem.items) allowed.emplace_back(item.candidates.size(), true);
  if (auto misfit = take_out_misfits(problem, allowed)) return misfit;
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    std::size_t c = 0;
    std::erase_if(problem.items[i].candidates, [&](const Candidate&) { return !allowed[i][c++]; });
  }
  return {};
}

}  // namespace serrate
