#pragma once

#include <span>
#include <string>
#include <string_view>

#include "src/io/sealed_file.h"
#include "tests/support/temporary_folder.h"

namespace serrate::testing {

/// A file with this content, under a seal that is right.
inline void write_sealed(const std::string& path, std::string_view content) {
  const auto file = SealedFile::create(path);
  file->write(0, std::as_bytes(std::span(content)));
  file->seal();
}

/// Seals a file again that HDF5 itself has changed: such a one has no seal left.
inline void seal_again(const std::string& path) {
  write_sealed(path, read_file(path));
}

}  // namespace serrate::testing
