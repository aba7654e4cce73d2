#include "src/checkpoint/exact_cover.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace serrate {
namespace {

TEST(ExactCover, IsExact) {
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 2}, {0, 1, 2, 3}, {1, 4, 2, 3}}, 4, 3), "");
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 2}}, 4, 3), "4 of its 12 values are missing");
  EXPECT_EQ(find_cover_problem({}, 4, 3), "12 of its 12 values are missing");
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 3}, {2, 3, 1, 2}}, 4, 3),
            "rows 2 to 3 of columns 1 to 2 appear twice");
  // The same area twice, and as much missing.
  EXPECT_EQ(find_cover_problem({{0, 2, 0, 3}, {0, 2, 0, 3}}, 4, 3),
            "rows 0 to 2 of columns 0 to 3 appear twice");
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 1}, {1, 3, 0, 2}, {0, 4, 2, 3}}, 4, 3),
            "rows 1 to 3 of columns 0 to 1 appear twice");
  EXPECT_EQ(find_cover_problem({{0, 5, 0, 3}}, 4, 3),
            "rows 0 to 5 of columns 0 to 3 are no part of its 4 rows and 3 columns");
  EXPECT_EQ(find_cover_problem({{-1, 4, 0, 3}}, 4, 3),
            "rows -1 to 4 of columns 0 to 3 are no part of its 4 rows and 3 columns");
  EXPECT_EQ(find_cover_problem({{2, 2, 0, 3}, {0, 4, 0, 3}}, 4, 3),
            "rows 2 to 2 of columns 0 to 3 are no part of its 4 rows and 3 columns");
}

TEST(ExactCover, AgreesWithAGridOfCounts) {
  std::mt19937 random(1);
  const auto below = [&](int n) { return static_cast<std::int64_t>(random() % n); };
  int exact = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::int64_t rows = 1 + below(4), columns = 1 + below(4);
    std::vector<Rectangle> parts;
    std::vector<int> counts(rows * columns, 0);
    for (std::int64_t n = below(6); n >= 0; --n) {
      const std::int64_t r = below(rows), c = below(columns);
      parts.push_back({r, r + 1 + below(rows - r), c, c + 1 + below(columns - c)});
      const Rectangle& p = parts.back();
      for (std::int64_t i = p.row_begin; i < p.row_end; ++i) {
        for (std::int64_t j = p.column_begin; j < p.column_end; ++j) counts[i * columns + j] += 1;
      }
    }
    const bool covers = std::ranges::all_of(counts, [](int n) { return n == 1; });
    exact += covers ? 1 : 0;
    ASSERT_EQ(find_cover_problem(parts, rows, columns).empty(), covers);
  }
  EXPECT_GT(exact, 500);
}

}  // namespace
}  // namespace serrate
