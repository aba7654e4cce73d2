#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace serrate {

/// The content of a sealed HDF5 file, to be changed under right checksums of HDF5's metadata.
class Hdf5Edits {
 public:
  /// For a file with a superblock and object headers of version 2.
  explicit Hdf5Edits(std::string content);

  /// The content with bytes changed: each 3 of `edits` are where, modulo its size, and to what.
  std::string apply(std::string_view edits) const;

 private:
  /// A part of the metadata and its checksum behind it.
  struct Checksummed {
    std::size_t begin = 0;
    std::size_t end = 0;  // where the checksum is
  };
  void find_checksum(std::size_t begin);

  std::string content_;
  std::vector<Checksummed> metadata_;
};

/// The content of a sealed file.
std::string read_sealed(const std::string& path);
/// Writes a sealed file.
void write_sealed(const std::string& path, std::string_view content);

}  // namespace serrate
