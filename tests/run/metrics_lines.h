#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "src/core/json.h"

namespace serrate {

/// The lines of a metrics file.
struct Lines {
  std::vector<std::int64_t> steps;
  std::vector<double> losses, seconds;
};

inline Lines read_lines(const std::string& path) {
  Lines lines;
  std::ifstream input(path);
  for (std::string line; std::getline(input, line);) {
    const auto json = parse_json(line, path);
    lines.steps.push_back(json.at("step"));
    lines.losses.push_back(json.at("loss"));
    lines.seconds.push_back(json.at("seconds"));
  }
  return lines;
}

inline std::vector<std::int64_t> numbers(std::int64_t first, std::int64_t last) {
  std::vector<std::int64_t> all;
  for (std::int64_t i = first; i <= last; ++i) all.push_back(i);
  return all;
}

}  // namespace serrate
