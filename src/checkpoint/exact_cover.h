#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/checkpoint/manifest.h"

namespace serrate {

/// What keeps rectangles from covering every row and column of a table exactly once, in words;
/// empty when they do. Takes n log n time for n rectangles, whatever they are.
std::string find_cover_problem(std::vector<Rectangle> parts, std::int64_t num_rows,
                               std::int64_t dim);

}  // namespace serrate
