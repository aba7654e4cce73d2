#include "src/core/say.h"

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace serrate {

void say(std::string_view line) {
  // In one piece: other ranks write to the same terminal.
  const std::string text = fmt::format("serrate: {}\n", line);
  std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace serrate
