#pragma once

#include <string>

namespace serrate {

/// The whole file. Error (usage) when it cannot be read.
std::string read_text_file(const std::string& path);
/// Replaces the file in one step, durably (see AtomicFile).
void write_text_file(const std::string& path, const std::string& text);

}  // namespace serrate
