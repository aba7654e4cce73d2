#pragma once

#include <concepts>
#include <string>

#include "serrate/error.h"
#include "src/io/read_error.h"

namespace serrate {

/// The whole file. Error when it cannot be read, of the kind that `kind_of` says, or (usage) when
/// it is larger than any text of ours.
std::string read_text_file(const std::string& path, ReadErrorKind kind_of = kind_of_read_error);
/// What `parse` makes of the file's text; an Error of it becomes one that begins with the path.
template <std::invocable<const std::string&> Parse>
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
