#include "src/checkpoint/directory_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "serrate/error.h"

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

FileDescriptor lock_directory(const std::string& directory) {
  LockedFile lock = open_locked(directory + "/lock", O_RDWR | O_CREAT | O_NOFOLLOW);
  if (!lock.is_ours) {
    throw usage_error(
        fmt::format("{} is in use by {} (two writers would mix their checkpoints): "
                    "wait for it or choose another directory",
                    directory, holder_of(lock.file.number())));
  }
  write_holder(lock.file.number());
  return std::move(lock.file);
}

}  // namespace

DirectoryLock::DirectoryLock(const std::string& directory) : file_(lock_directory(directory)) {}

}  // namespace serrate
