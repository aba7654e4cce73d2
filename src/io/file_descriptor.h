#pragma once

#include <string>
#include <utility>

namespace serrate {

/// An open file, closed by the destructor.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number) : number_(number) {}
  ~FileDescriptor() { close(); }
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;

  int number() const { return number_; }
  /// Closes now; an errno when that failed, else 0.
  int close() noexcept;

 private:
  int number_;
};

/// Keeps other writers, of this process and others, out of an open file until it is closed. False
/// when another has the lock. On file systems without locks it warns once and locks nothing.
bool lock_file(int descriptor, const std::string& path);

}  // namespace serrate
