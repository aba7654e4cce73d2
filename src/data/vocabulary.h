#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace serrate {

/// Texts numbered 0, 1, ... in the order in which they were first added. All texts lie behind one
/// another in one string; the hash table (open addressing, at most half full) holds only ids.
class Vocabulary {
 public:
  std::int64_t size() const { return static_cast<std::int64_t>(offsets_.size()) - 1; }
  std::string_view text(std::int64_t id) const {
    return std::string_view(bytes_).substr(
        static_cast<std::size_t>(offsets_[id]),
        static_cast<std::size_t>(offsets_[id + 1] - offsets_[id]));
  }
  const std::string& bytes() const { return bytes_; }
  const std::vector<std::int64_t>& offsets() const { return offsets_; }  // [size + 1]

  /// The id of a text, which is added if it is new.
  std::int64_t add(std::string_view text);

 private:
  std::size_t find_slot(std::string_view text) const;

  std::string bytes_;
  std::vector<std::int64_t> offsets_{0};
  std::vector<std::int64_t> slots_ = std::vector<std::int64_t>(16, -1);  // ids or -1
};

}  // namespace serrate
