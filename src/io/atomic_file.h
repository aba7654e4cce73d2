#pragma once

#include <string>

namespace serrate {

/// fsync of a file or a directory.
void sync_path(const std::string& path);

/// A file that appears under its name only when it is complete: write temporary_path(), close it,
/// then commit() makes it durable and renames it. Without commit() the destructor removes it.
class AtomicFile {
 public:
  /// Throws Error (usage) when the folder of `path` does not exist.
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& temporary_path() const { return temporary_path_; }
  void commit();

 private:
  std::string path_;
  std::string temporary_path_;
  bool committed_ = false;
};

}  // namespace serrate
