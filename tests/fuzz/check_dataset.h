#pragma once

#include <string>

namespace serrate {

/// Reads all of a dataset. By the first byte of `input`, the rest is the file, or its content, to
/// which a right seal is added, or a list of edits of a small dataset, three bytes each (offset,
/// offset, value), whose checksums are made right again, HDF5's own and the seal: a hostile file
/// that everybody takes for sound. It has to be refused with an Error or to be read to its end;
/// anything else ends the process.
void check_dataset(const std::string& input);

}  // namespace serrate
