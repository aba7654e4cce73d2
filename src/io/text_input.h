#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace serrate {

/// The bytes of a file, unpacked when they are gzip or xz: told by how the file begins, not by its
/// name.
class TextInput {
 public:
  /// Throws Error (usage) when the file cannot be read.
  explicit TextInput(const std::string& path);
  ~TextInput();

  /// Up to `size` bytes; 0 at the end. Throws Error when packed data is damaged or cut off.
  std::size_t read(char* data, std::size_t size);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate
