#pragma once

#include <string>

namespace serrate {

/// Reads a file of delimited text, plain or packed; the first byte of `input` chooses the
/// separator. It has to be refused with an Error (usage), or what was read has to be read again
/// from fields that are all in quotes; anything else ends the process.
void check_delimited_text(const std::string& input);

/// Reads a time. It has to be refused, or to be the same when it is written another way.
void check_time(const std::string& text);

}  // namespace serrate
