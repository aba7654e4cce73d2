#pragma once

#include <string>

#include "src/io/file_descriptor.h"

namespace serrate {

/// Keeps other writers, of this process and others, out of a directory while it exists: a lock on
/// the file `directory`/lock, which ends with the process that has it, however that ends. On file
/// systems without locks it says so and locks nothing.
class DirectoryLock {
 public:
  /// Error (usage) naming host and process when another has it.
  explicit DirectoryLock(const std::string& directory);

 private:
  FileDescriptor file_;
};

}  // namespace serrate
