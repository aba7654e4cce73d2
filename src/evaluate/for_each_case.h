#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/data/dataset.h"
#include "src/data/split.h"
#include "src/data/user_columns.h"

namespace serrate {

/// Calls visit(case, history, target) with the items of every case, as the dataset stores them, in
/// the order of cases. Reads the file in chunks.
template <typename Visit>
void for_each_case(const Dataset& dataset, std::span<const EvaluationCase> cases,
                   UnknownIds unknown_ids, const Visit& visit) {
  auto next = cases.begin();
  const auto read = [&](std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& items) {
    dataset.read_items(begin, end, items, unknown_ids);
  };
  for_each_user(dataset, read, [&](std::int64_t user, std::span<const std::int64_t> items) {
    if (next == cases.end() || next->user != user) return;
    const std::int64_t base = dataset.user_offsets()[user];
    visit(*next, items.subspan(next->history_begin - base, next->history_end - next->history_begin),
          items[next->target_event - base]);
    ++next;
  });
}

}  // namespace serrate
