#pragma once

#include <string_view>

namespace serrate {

/// A line on stderr for the person who runs the job. One rank says what concerns all.
void say(std::string_view line);

}  // namespace serrate
