#include "src/evaluate/baselines.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <span>
#include <utility>

#include "src/evaluate/for_each_case.h"
#include "src/evaluate/ranking_metrics.h"

namespace serrate {
namespace {

using Items = std::span<const std::int64_t>;

/// What is ranked.
struct Cases {
  const Dataset& dataset;
  const Split& split;
  UnknownIds unknown_ids;
};

/// Calls visit(history, target) for every case, in the order of cases, without ids that are no
/// items.
template <typename Visit>
void for_each_history(const Cases& cases, const Visit& visit) {
  const auto& [dataset, split, unknown_ids] = cases;
  std::vector<std::int64_t> valid;
  for_each_case(dataset, split.cases, unknown_ids,
                [&](const EvaluationCase&, Items history, std::int64_t target) {
                  valid.clear();
                  std::ranges::copy_if(history, std::back_inserter(valid),
                                       [&](std::int64_t id) { return dataset.has_item(id); });
                  visit(Items(valid), target);
                });
}

struct Counts {
  std::vector<std::int64_t> popularity_rank;  // [num_items], from 1
  // Items that came right after item i, best first: successors [successors_begin[i], _end[i]).
  std::vector<std::int64_t> successors;
  std::vector<std::int64_t> successors_begin;  // [num_items]
  std::vector<std::int64_t> successors_end;    // [num_items]

  std::span<std::int64_t> successors_of(std::int64_t item) {
    return std::span(successors)
        .subspan(successors_begin[item], successors_end[item] - successors_begin[item]);
  }
};

/// The highest count first, otherwise in the order they are in.
void sort_by_count(std::span<std::int64_t> items, const std::vector<std::int64_t>& count) {
  std::ranges::stable_sort(items, std::ranges::greater(),
                           [&](std::int64_t item) { return count[item]; });
}

void rank_by_popularity(const Cases& cases, Counts& counts) {
  const std::int64_t num_items = cases.dataset.num_items();
  std::vector<std::int64_t> events(num_items, 0);
  std::vector<std::int64_t> items;
  for_each_history(cases, [&](Items history, std::int64_t) {
    for (const std::int64_t item : history) {
      if (events[item]++ == 0) items.push_back(item);
    }
  });
  for (std::int64_t item = 0; item < num_items; ++item) {
    if (events[item] == 0) items.push_back(item);
  }
  sort_by_count(items, events);
  counts.popularity_rank.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    counts.popularity_rank[items[i]] = static_cast<std::int64_t>(i) + 1;
  }
}

/// Lists the successors of every item in the order of events, then ranks each list in place.
void rank_successors(const Cases& cases, Counts& counts) {
  std::vector<std::int64_t> count(cases.dataset.num_items(), 0);
  for_each_history(cases, [&](Items history, std::int64_t) {
    for (std::size_t i = 1; i < history.size(); ++i) ++count[history[i - 1]];
  });
  counts.successors_begin.resize(count.size());
  std::exclusive_scan(count.begin(), count.end(), counts.successors_begin.begin(), std::int64_t{0});
  counts.successors_end = counts.successors_begin;
  counts.successors.resize(std::reduce(count.begin(), count.end()));
  for_each_history(cases, [&](Items history, std::int64_t) {
    for (std::size_t i = 1; i < history.size(); ++i) {
      counts.successors[counts.successors_end[history[i - 1]]++] = history[i];
    }
  });

  std::ranges::fill(count, 0);
  for (std::int64_t item = 0; item < cases.dataset.num_items(); ++item) {
    const std::span<std::int64_t> all = counts.successors_of(item);
    std::size_t distinct = 0;
    for (const std::int64_t successor : all) {
      if (count[successor]++ == 0) all[distinct++] = successor;
    }
    counts.successors_end[item] = counts.successors_begin[item] + distinct;
    sort_by_count(all.first(distinct), count);
    for (const std::int64_t successor : all.first(distinct)) count[successor] = 0;
  }
}

std::int64_t repeat_rank(Items history, std::int64_t target, std::vector<std::int64_t>& count) {
  for (const std::int64_t item : history) ++count[item];
  const std::int64_t target_count = count[target];
  std::int64_t rank = 1;
  bool before_target = true;
  for (const std::int64_t item : history) {
    if (item == target) before_target = false;
    const std::int64_t item_count = std::exchange(count[item], 0);  // counts an item once
    rank += item_count > target_count || (item_count == target_count && before_target);
  }
  return target_count == 0 ? kNotRanked : rank;
}

/// `filtered` says by item whether it is left out, `popularity_rank` is the target's without those.
std::int64_t markov_rank(Items successors, std::int64_t target, const std::vector<char>& filtered,
                         const std::vector<std::int64_t>& popularity,
                         std::int64_t popularity_rank) {
  const auto found = std::ranges::find(successors, target);
  if (found != successors.end()) {
    return 1 + std::count_if(successors.begin(), found,
                             [&](std::int64_t item) { return !filtered[item]; });
  }
  // Backed off to popularity, behind the successors that are less popular than the target too.
  return popularity_rank + std::ranges::count_if(successors, [&](std::int64_t item) {
           return !filtered[item] && popularity[item] > popularity[target];
         });
}

}  // namespace

std::int64_t baseline_bytes(const Dataset& dataset, const Split& split) {
  // Popularity, successors' begin and end, count; a sort has room for half of a list.
  constexpr std::int64_t kOfItem = 4 * 8 + 4;
  constexpr std::int64_t kOfCase =
      3 * 2 * 8;  // ranks, in vectors that grow to twice what they hold
  std::int64_t num_successors = 0;
  for (const EvaluationCase& c : split.cases) num_successors += c.history_end - c.history_begin - 1;
  return kOfItem * dataset.num_items() + 8 * num_successors + kOfCase * std::ssize(split.cases);
}

BaselineRanks rank_baselines(const Dataset& dataset, const Split& split, SeenItems seen,
                             UnknownIds unknown_ids) {
  const Cases cases{dataset, split, unknown_ids};
  Counts counts;
  rank_by_popularity(cases, counts);
  rank_successors(cases, counts);
  const std::vector<std::int64_t>& popularity = counts.popularity_rank;
  BaselineRanks ranks;
  std::vector<std::int64_t> count(dataset.num_items(), 0);
  std::vector<char> filtered(dataset.num_items(), 0);
  for_each_history(cases, [&](Items history, std::int64_t target) {
    const Items left_out = seen == SeenItems::kFilter ? history : Items();
    std::int64_t popularity_rank = popularity[target];
    for (const std::int64_t item : left_out) {
      if (!std::exchange(filtered[item], 1) && popularity[item] < popularity[target]) {
        --popularity_rank;
      }
    }
    if (filtered[target]) {
      for (auto* ranking : {&ranks.popularity, &ranks.repeat, &ranks.markov}) {
        ranking->push_back(kNotRanked);
      }
    } else {
      ranks.popularity.push_back(popularity_rank);
      ranks.repeat.push_back(repeat_rank(history, target, count));
      const Items successors = history.empty() ? Items() : counts.successors_of(history.back());
      ranks.markov.push_back(
          markov_rank(successors, target, filtered, popularity, popularity_rank));
    }
    for (const std::int64_t item : left_out) filtered[item] = 0;
  });
  return ranks;
}

}  // namespace serrate
