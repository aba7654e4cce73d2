#include "src/checkpoint/exact_cover.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace serrate {
namespace {

std::string describe(const Rectangle& r) {
  return fmt::format("rows {} to {} of columns {} to {}", r.row_begin, r.row_end, r.column_begin,
                     r.column_end);
}

}  // namespace

// Inside the table, disjoint and of the table's area together: that is an exact cover. The parts
// are taken by their first row; `columns` has the last part seen so far of every run of columns.
std::string find_cover_problem(std::vector<Rectangle> parts, std::int64_t num_rows,
                               std::int64_t dim) {
  std::ranges::sort(parts, {}, &Rectangle::row_begin);
  std::map<std::int64_t, const Rectangle*> columns;  // by column_begin; no two share a column
  std::int64_t area = 0;
  for (const Rectangle& part : parts) {
    if (is_empty(part) || part.row_begin < 0 || part.column_begin < 0 || part.row_end > num_rows ||
        part.column_end > dim) {
      return fmt::format("{} are no part of its {} rows and {} columns", describe(part), num_rows,
                         dim);
    }
    auto at = columns.lower_bound(part.column_begin);
    if (at != columns.begin() && std::prev(at)->second->column_end > part.column_begin) --at;
    while (at != columns.end() && at->first < part.column_end) {
      if (at->second->row_end > part.row_begin) {
        return fmt::format("{} appear twice", describe(overlap(part, *at->second)));
      }
      at = columns.erase(at);
    }
    columns[part.column_begin] = &part;
    area += part.num_rows() * part.num_columns();
  }
  if (area == num_rows * dim) return "";
  return fmt::format("{} of its {} values are missing", num_rows * dim - area, num_rows * dim);
}

}  // namespace serrate
