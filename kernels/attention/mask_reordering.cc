#include "serrate/kernels/mask_reordering.h"

#include <algorithm>
#include <numeric>

#include "serrate/error.h"

namespace serrate {

std::vector<std::int64_t> reverse_cuthill_mckee(MatrixView<const std::uint8_t> visible) {
  check(visible.rows == visible.cols, "only a square mask can be reordered");
  const std::int64_t n = visible.rows;
  std::vector<std::vector<std::int64_t>> neighbours(n);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < i; ++j) {
      if (visible.row(i)[j] == 0 && visible.row(j)[i] == 0) continue;
      neighbours[i].push_back(j);
      neighbours[j].push_back(i);
    }
  }
  const auto fewer_neighbours = [&](std::int64_t a, std::int64_t b) {
    return std::pair(neighbours[a].size(), a) < std::pair(neighbours[b].size(), b);
  };
  std::vector<std::int64_t> starts(n), order;
  std::iota(starts.begin(), starts.end(), 0);
  std::sort(starts.begin(), starts.end(), fewer_neighbours);

  // Breadth first from the token with the fewest neighbours of each component.
  std::vector<char> is_placed(n, 0);
  const auto place = [&](std::int64_t token) {
    if (is_placed[token] == 0) order.push_back(token);
    is_placed[token] = 1;
  };
  std::size_t next = 0;
  for (const std::int64_t start : starts) {
    place(start);
    for (; next < order.size(); ++next) {
      std::vector<std::int64_t>& found = neighbours[order[next]];
      std::sort(found.begin(), found.end(), fewer_neighbours);
      for (const std::int64_t token : found) place(token);
    }
  }
  std::reverse(order.begin(), order.end());
  return order;
}

}  // namespace serrate
