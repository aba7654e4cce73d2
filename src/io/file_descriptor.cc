#include "src/io/file_descriptor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "src/core/say.h"

namespace serrate {

int FileDescriptor::close() noexcept {
  if (number_ < 0) return 0;
  // Linux has closed it even when it was interrupted.
  return ::close(std::exchange(number_, -1)) == 0 || errno == EINTR ? 0 : errno;
}

bool lock_file(int descriptor, const std::string& path) {
  // A lock of the open file, not of the process, keeps out two writers of one process too.
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(descriptor, F_OFD_SETLK, &lock) == 0) return true;
  const int error = errno;
  if (error == EAGAIN || error == EACCES) return false;
  static std::atomic<bool> warned{false};
  if (!warned.exchange(true)) {
    say(fmt::format("warning: {} cannot be locked ({}): make sure that no other job writes there",
                    path, std::strerror(error)));
  }
  return true;
}

}  // namespace serrate
