#pragma once

#include <string>

#include "serrate/error.h"

namespace serrate {

/// The whole file. Error (usage) when it cannot be read, or is larger than any text of ours.
std::string read_text_file(const std::string& path);
/// What `parse` makes of the file's text; an Error of it becomes one that begins with the path.
template <typename Parse>
auto read_text_file(const std::string& path, Parse&& parse) {
  const std::string text = read_text_file(path);
  try {
    return parse(text);
  } catch (const Error& error) {
    throw Error(path + ": " + error.what(), error.kind());
  }
}
/// Replaces the file in one step, durably (see AtomicFile). A device or a pipe is written through.
void write_text_file(const std::string& path, const std::string& text);

}  // namespace serrate
