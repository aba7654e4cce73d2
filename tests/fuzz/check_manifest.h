#pragma once

#include <string>

namespace serrate {

/// Gives `text` to the reader of MANIFEST.json, as it is and as what comes before a right checksum.
/// It has to be refused with an Error (usage), or be read as what it writes again to the same
/// bytes; anything else ends the process.
void check_manifest(const std::string& text);

}  // namespace serrate
