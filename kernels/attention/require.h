#pragma once

#include <fmt/format.h>

#include <utility>

#include "serrate/error.h"

namespace serrate {

template <typename... Args>
void require(bool holds, fmt::format_string<Args...> message, Args&&... args) {
  if (!holds) throw Error("attention: " + fmt::format(message, std::forward<Args>(args)...));
}

}  // namespace serrate
