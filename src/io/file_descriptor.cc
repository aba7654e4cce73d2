#include "src/io/file_descriptor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "serrate/error.h"
#include "src/core/say.h"
#include "src/io/file_calls.h"

namespace serrate {
namespace {

bool is_file_at(int descriptor, const std::string& path) {
  struct stat ours{}, theirs{};
  return ::fstat(descriptor, &ours) == 0 && ::stat(path.c_str(), &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/// False when another has the lock.
bool lock_file(int descriptor, const std::string& path) {
  // A lock of the open file, not of the process, keeps out two writers of one process too.
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (retry_interrupted([&] { return ::fcntl(descriptor, F_OFD_SETLK, &lock); }) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  say(fmt::format("warning: {} cannot be locked ({}): make sure that no other job writes there",
                  path, std::strerror(errno)));
  return true;
}

}  // namespace

int FileDescriptor::close() noexcept {
  if (number_ < 0) return 0;
  // Linux has closed it even when it was interrupted.
  return ::close(std::exchange(number_, -1)) == 0 || errno == EINTR ? 0 : errno;
}

LockedFile open_locked(const std::string& path, int flags) {
  for (;;) {
    FileDescriptor file(open_descriptor(path, flags));
    if (file.number() < 0) {
      throw usage_error(fmt::format("{} cannot be written ({})", path, std::strerror(errno)));
    }
    if (!lock_file(file.number(), path)) return {std::move(file), false};
    // It may have been renamed between the two calls.
    if (is_file_at(file.number(), path)) return {std::move(file), true};
  }
}

}  // namespace serrate
