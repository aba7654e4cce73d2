#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace serrate::cli {

/// As fmt::print to the standard output, where a write that fails must not end the work: a training
/// outlives its terminal. main() reports it at the end.
template <typename... Args>
void put(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  std::fwrite(text.data(), 1, text.size(), stdout);
}

}  // namespace serrate::cli
