#pragma once

#include <string>

namespace serrate {

/// What sets options of `serrate train`: by its first byte, `input` is a run's config.json, a file
/// of
/// --config, or a command line with an argument on every line. It has to be refused with an Error
/// (usage), or be read as what is written and reads again to the same bytes; anything else ends the
/// process.
void check_config(const std::string& input);

}  // namespace serrate
