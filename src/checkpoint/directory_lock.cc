#include "src/checkpoint/directory_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "serrate/error.h"
#include "src/io/file_descriptor.h"

namespace serrate {
namespace {

/// What the holder wrote: its host and process.
std::string holder_of(int descriptor) {
  std::array<char, 256> text{};
  const ssize_t size = ::pread(descriptor, text.data(), text.size(), 0);
  std::string holder(text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  if (const std::size_t end = holder.find('\n'); end != std::string::npos) holder.resize(end);
  return holder.empty() ? "another process" : holder;
}

void write_holder(int descriptor) {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const std::string text = fmt::format("process {} on {}\n", ::getpid(), host.data());
  // For messages alone: a lock that cannot say whose it is is still one.
  if (::ftruncate(descriptor, 0) != 0) return;
  [[maybe_unused]] const ssize_t written = ::pwrite(descriptor, text.data(), text.size(), 0);
}

bool is_file_at(int descriptor, const std::string& path) {
  struct stat ours{}, theirs{};
  return ::fstat(descriptor, &ours) == 0 && ::stat(path.c_str(), &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

}  // namespace

DirectoryLock::DirectoryLock(const std::string& directory) : descriptor_(-1) {
  const std::string path = directory + "/lock";
  for (;;) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (descriptor_ < 0) {
      throw usage_error(fmt::format("{} cannot be written ({})", path, std::strerror(errno)));
    }
    if (!lock_file(descriptor_, path)) {
      const std::string holder = holder_of(descriptor_);
      ::close(descriptor_);
      throw usage_error(
          fmt::format("{} is in use by {} (two writers would mix their checkpoints): "
                      "wait for it or choose another directory",
                      directory, holder));
    }
    // The directory may have been renamed between the two calls.
    if (is_file_at(descriptor_, path)) break;
    ::close(descriptor_);
  }
  write_holder(descriptor_);
}

DirectoryLock::~DirectoryLock() {
  ::close(descriptor_);
}

}  // namespace serrate
