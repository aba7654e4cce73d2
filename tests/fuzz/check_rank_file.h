#pragma once

#include <string>

namespace serrate {

/// Loads a small checkpoint whose one file is, by the first byte of `input`, the rest of it under a
/// right seal, or a sound one with bytes changed (each 3 of the input: where, and to what) under
/// right checksums of HDF5's and a right seal. The file has to be refused with an Error, or give
/// finite values; anything else ends the process. Returns whether it was loaded.
bool check_rank_file(const std::string& input);

}  // namespace serrate
