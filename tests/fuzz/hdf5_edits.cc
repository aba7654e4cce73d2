#include "tests/fuzz/hdf5_edits.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>

#include "src/io/sealed_file.h"

// HDF5's checksum of metadata (Jenkins' lookup3), of its library and not of its headers.
extern "C" std::uint32_t H5_checksum_lookup3(const void* bytes, std::size_t size,
                                             std::uint32_t start);

namespace serrate {

Hdf5Edits::Hdf5Edits(std::string content) : content_(std::move(content)) {
  for (const std::string_view signature : {"\x89HDF", "OHDR", "OCHK", "FRHP", "FHDB", "BTHD"}) {
    for (std::size_t at = content_.find(signature); at != content_.npos;
         at = content_.find(signature, at + 1)) {
      find_checksum(at);
    }
  }
  if (metadata_.size() < 5) std::abort();
}

/// How long the part is, the checksum tells.
void Hdf5Edits::find_checksum(std::size_t begin) {
  for (std::size_t end = begin + 8; end + 4 <= content_.size() && end < begin + 4096; ++end) {
    std::uint32_t stored = 0;
    std::memcpy(&stored, &content_[end], sizeof(stored));
    if (stored != H5_checksum_lookup3(&content_[begin], end - begin, 0)) continue;
    metadata_.push_back({begin, end});
    return;
  }
}

std::string Hdf5Edits::apply(std::string_view edits) const {
  std::string content = content_;
  for (; edits.size() >= 3; edits.remove_prefix(3)) {
    const auto low = static_cast<unsigned char>(edits[0]);
    const auto high = static_cast<unsigned char>(edits[1]);
    content[(low | high << 8) % content.size()] = edits[2];
  }
  for (const Checksummed& part : metadata_) {
    const std::uint32_t checksum =
        H5_checksum_lookup3(&content[part.begin], part.end - part.begin, 0);
    std::memcpy(&content[part.end], &checksum, sizeof(checksum));
  }
  return content;
}

std::string read_sealed(const std::string& path) {
  const auto file = SealedFile::open(path);
  std::string content(static_cast<std::size_t>(file->size()), '\0');
  file->read(0, std::as_writable_bytes(std::span(content)));
  return content;
}

void write_sealed(const std::string& path, std::string_view content) {
  const auto file = SealedFile::create(path);
  file->write(0, std::as_bytes(std::span(content)));
  file->seal();
}

}  // namespace serrate
