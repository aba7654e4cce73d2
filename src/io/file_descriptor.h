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
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }

  int number() const { return number_; }
  /// Closes now; an errno when that failed, else 0.
  int close() noexcept;

 private:
  int number_;
};

struct LockedFile {
  FileDescriptor file;
  bool is_ours = false;  // false: another has the lock
};

/// Opens the file of that name and keeps other writers, of this process and others, out of it until
/// it is closed. On file systems without locks it says so and locks nothing. Throws Error (usage)
/// when it cannot be opened.
LockedFile open_locked(const std::string& path, int flags);

}  // namespace serrate
