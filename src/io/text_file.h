#pragma once

#include <string>

namespace serrate {

/// The whole file. Error (usage) when it cannot be read, or is larger than any text of ours.
std::string read_text_file(const std::string& path);
/// Replaces the file in one step, durably (see AtomicFile). A device or a pipe is written through.
void write_text_file(const std::string& path, const std::string& text);

}  // namespace serrate
