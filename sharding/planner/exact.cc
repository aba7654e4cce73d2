#include "sharding/planner/exact.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "sharding/planner/state.h"

namespace serrate {
namespace {

using enum ShardingType;

// The next sorted list of `blocks` places below num_places; false after the last.
bool next(std::vector<int>& blocks, int num_places) {
  int i = static_cast<int>(blocks.size()) - 1;
  while (i >= 0 && blocks[i] == num_places - 1) --i;
  if (i < 0) return false;
  std::fill(blocks.begin() + i, blocks.end(), blocks[i] + 1);
  return true;
}

class Tries {
 public:
  Tries(const PlannerProblem& problem, PlannerObjective objective, std::int64_t most_placements,
        SearchResult& best)
      : problem_(problem),
        phases_(make_phases(problem, objective,
                            {{kDataParallel, kTableWise, kRowWise, kColumnWise, kTableRowWise,
                              kTableColumnWise, kGrid}})),
        state_(problem, phases_),
        left_(most_placements),
        best_(best) {
    std::vector<double> least_mean;
    for (int i = 0; i < state_.num_items(); ++i) {
      double least = std::numeric_limits<double>::infinity();
      for (int c = 0; c < std::ssize(phases_.items[i]); ++c) least = std::min(least, mean(i, c));
      least_mean.push_back(least);
    }
    items_.resize(state_.num_items());
    std::iota(items_.begin(), items_.end(), 0);
    std::ranges::stable_sort(items_, [&](int a, int b) { return least_mean[a] > least_mean[b]; });
    least_after_.assign(items_.size() + 1, 0.0);
    for (std::size_t i = items_.size(); i-- > 0;) {
      least_after_[i] = least_after_[i + 1] + least_mean[items_[i]];
    }
  }

  bool run() {
    if (!best_.within_memory) best_.objective = std::numeric_limits<double>::infinity();
    descend(0, 0);
    return left_ >= 0;
  }

 private:
  // What a choice adds to the ranks' mean, ms.
  double mean(int item, int choice) const {
    const Phases::Choice& c = state_.choice_of(item, choice);
    const bool on_all = state_.candidate(item, choice).scope == BlockScope::kAll;
    return c.uniform + (on_all ? 0 : c.work / state_.num_ranks());
  }

  // Places the items from `depth` on; those before take `placed` in the mean.
  void descend(std::size_t depth, double placed) {
    if (depth == items_.size()) {
      best_ = {state_.placement(), state_.objective(), true};
      return;
    }
    const int item = items_[depth];
    for (int c = 0; c < std::ssize(phases_.items[item]); ++c) {
      const double with = placed + mean(item, c);
      if (with + least_after_[depth + 1] >= best_.objective) continue;
      const BlockScope scope = state_.candidate(item, c).scope;
      const bool somewhere = scope == BlockScope::kRank || scope == BlockScope::kNode;
      std::vector<int> blocks(somewhere ? state_.candidate(item, c).num_blocks : 0, 0);
      const int num_places = scope == BlockScope::kNode ? state_.num_nodes() : state_.num_ranks();
      do {
        if (--left_ < 0) return;
        if (!may_be(item, c, blocks)) continue;
        state_.place(item, c, blocks);
        if (state_.within_memory() && state_.objective() < best_.objective) {
          descend(depth + 1, with);
        }
        state_.remove(item);
      } while (next(blocks, num_places));
    }
  }

  bool may_be(int item, int choice, const std::vector<int>& blocks) const {
    const Candidate& c = state_.candidate(item, choice);
    if (c.type == kTableColumnWise &&
        blocks.front() / problem_.ranks_per_node != blocks.back() / problem_.ranks_per_node) {
      return false;
    }
    return std::ranges::all_of(blocks, [&](int place) {
      return c.scope == BlockScope::kRank ? state_.may_be_on(item, place)
                                          : state_.may_be_on_node(item, place);
    });
  }

  const PlannerProblem& problem_;
  const Phases phases_;
  SearchState state_;
  std::vector<int> items_;           // those that take the most first
  std::vector<double> least_after_;  // of the means of items_[i] and all after it
  std::int64_t left_;
  SearchResult& best_;
};

}  // namespace

bool try_all_placements(const PlannerProblem& problem, PlannerObjective objective,
                        std::int64_t most_placements, SearchResult& best) {
  return Tries(problem, objective, most_placements, best).run();
}

}  // namespace serrate
