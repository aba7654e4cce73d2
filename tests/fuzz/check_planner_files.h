#pragma once

#include <string>

namespace serrate {

/// Gives `text` to the readers of models, topologies and plans. Each has to refuse it with an Error
/// (usage), or read what it writes again to the same bytes; anything else ends the process.
void check_planner_files(const std::string& text);

}  // namespace serrate
