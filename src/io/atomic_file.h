#pragma once

#include <string>

namespace serrate {

/// "." for a name without a folder.
std::string folder_of(const std::string& path);

/// fsync of a file or a directory.
void sync_path(const std::string& path);

/// What an AtomicFile of this process writes for `path` until it is committed.
std::string temporary_path_of(const std::string& path);

/// A file that appears under its name only when it is complete: write temporary_path(), close it,
/// then commit() makes it durable and renames it. Without commit() the destructor removes it. Where
/// `path` is a symbolic link, what it links to is replaced; a file that is replaced keeps its
/// permissions.
class AtomicFile {
 public:
  /// Throws Error (usage) when no file can be made there: no folder, or `path` is one; or a device
  /// or a pipe, which could not be replaced.
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& temporary_path() const { return temporary_path_; }
  void commit();

 private:
  std::string path_;
  std::string target_;  // what path_ links to
  std::string temporary_path_;
  bool committed_ = false;
};

}  // namespace serrate
