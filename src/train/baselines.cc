#include "src/train/baselines.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>

#include "src/data/user_columns.h"
#include "src/train/ranking_metrics.h"

namespace serrate {
namespace {

using Items = std::span<const std::int64_t>;

/// Calls visit(history, target) with the items of every case, in the order of cases.
template <typename Visit>
void for_each_case(const Dataset& dataset, const Split& split, const Visit& visit) {
  auto next = split.cases.begin();
  const auto read = [&](std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& items) {
    dataset.read_items(begin, end, items);
  };
  for_each_user(dataset, read, [&](std::int64_t user, Items items) {
    if (next == split.cases.end() || next->user != user) return;
    const std::int64_t base = dataset.user_offsets()[user];
    visit(items.subspan(next->history_begin - base, next->history_end - next->history_begin),
          items[next->target_event - base]);
    ++next;
  });
}

/// How often `item` came right after `last`, and when it first did.
struct Transition {
  std::int64_t last;
  std::int64_t item;
  std::int64_t first_seen;
  std::int64_t count;
};

struct Counts {
  std::vector<std::int64_t> popularity_rank;  // [num_items], from 1
  std::vector<Transition> transitions;        // by last item, best next item first
};

/// Merges equal pairs and sorts each item's successors from the best.
void merge(std::vector<Transition>& transitions) {
  std::ranges::sort(transitions, {},
                    [](const Transition& t) { return std::tuple(t.last, t.item, t.first_seen); });
  std::size_t merged = 0;
  for (const Transition& t : transitions) {
    Transition& previous = transitions[merged == 0 ? 0 : merged - 1];
    if (merged > 0 && previous.last == t.last && previous.item == t.item) {
      previous.count += t.count;
    } else {
      transitions[merged++] = t;
    }
  }
  transitions.resize(merged);
  std::ranges::sort(transitions, {},
                    [](const Transition& t) { return std::tuple(t.last, -t.count, t.first_seen); });
}

Counts count_histories(const Dataset& dataset, const Split& split) {
  const std::int64_t num_items = dataset.num_items();
  std::vector<std::int64_t> events(num_items, 0);
  std::vector<std::int64_t> by_popularity;  // in the order of first events, then sorted
  Counts counts;
  for_each_case(dataset, split, [&](Items history, std::int64_t) {
    for (std::size_t i = 0; i < history.size(); ++i) {
      if (events[history[i]]++ == 0) by_popularity.push_back(history[i]);
      if (i > 0) {
        const auto now = static_cast<std::int64_t>(counts.transitions.size());
        counts.transitions.push_back({history[i - 1], history[i], now, 1});
      }
    }
  });
  for (std::int64_t item = 0; item < num_items; ++item) {
    if (events[item] == 0) by_popularity.push_back(item);
  }
  std::ranges::stable_sort(by_popularity, std::ranges::greater(),
                           [&](std::int64_t item) { return events[item]; });
  counts.popularity_rank.resize(num_items);
  for (std::int64_t i = 0; i < num_items; ++i) counts.popularity_rank[by_popularity[i]] = i + 1;
  merge(counts.transitions);
  return counts;
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
std::int64_t markov_rank(const Counts& counts, std::int64_t last, std::int64_t target,
                         const std::vector<char>& filtered, std::int64_t popularity_rank) {
  const std::vector<std::int64_t>& popularity = counts.popularity_rank;
  std::int64_t position = 1;
  std::int64_t backed_off = popularity_rank;
  for (const Transition& t :
       std::ranges::equal_range(counts.transitions, last, {}, &Transition::last)) {
    if (filtered[t.item]) continue;
    if (t.item == target) return position;
    ++position;
    if (popularity[t.item] > popularity[target]) ++backed_off;  // moved ahead of the target
  }
  return backed_off;
}

}  // namespace

BaselineRanks rank_baselines(const Dataset& dataset, const Split& split, SeenItems seen) {
  const Counts counts = count_histories(dataset, split);
  const std::vector<std::int64_t>& popularity = counts.popularity_rank;
  BaselineRanks ranks;
  std::vector<std::int64_t> count(dataset.num_items(), 0);
  std::vector<char> filtered(dataset.num_items(), 0);
  for_each_case(dataset, split, [&](Items history, std::int64_t target) {
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
      ranks.markov.push_back(
          markov_rank(counts, history.back(), target, filtered, popularity_rank));
    }
    for (const std::int64_t item : left_out) filtered[item] = 0;
  });
  return ranks;
}

}  // namespace serrate
