#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "src/data/dataset.h"

namespace serrate {

/// Calls visit(user, values) for every user in order, with the user's events of one column.
/// `read(begin, end, values)` reads a range of that column; it is asked for whole users, as many
/// as fit a chunk, so memory is a chunk or the longest user.
template <typename Read, typename Visit>
void for_each_user(const Dataset& dataset, const Read& read, const Visit& visit) {
  constexpr std::int64_t kChunkEvents = 1 << 16;
  const std::vector<std::int64_t>& offsets = dataset.user_offsets();
  std::vector<std::int64_t> values;
  std::int64_t last = 0;
  for (std::int64_t first = 0; first < dataset.num_users(); first = last) {
    last = first + 1;
    while (last < dataset.num_users() && offsets[last + 1] - offsets[first] <= kChunkEvents) ++last;
    read(offsets[first], offsets[last], values);
    const std::span<const std::int64_t> chunk(values);
    for (std::int64_t user = first; user < last; ++user) {
      visit(user, chunk.subspan(offsets[user] - offsets[first], offsets[user + 1] - offsets[user]));
    }
  }
}

}  // namespace serrate
