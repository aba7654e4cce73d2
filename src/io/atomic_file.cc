#include "src/io/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "serrate/error.h"
#include "src/io/output_file.h"

namespace serrate {
namespace {

[[noreturn]] void fail_system(const char* action, const std::string& path, int error) {
  throw Error(fmt::format("cannot {} {} ({})", action, path, std::strerror(error)));
}

}  // namespace

std::string folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

void sync_path(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_system("open", path, errno);
  int error = 0;
  do {
    error = ::fsync(descriptor) == 0 ? 0 : errno;
  } while (error == EINTR);  // network file systems give it; after any other error, data is lost
  ::close(descriptor);
  if (error != 0) fail_system("make durable", path, error);
}

std::string temporary_path_of(const std::string& path) {
  return fmt::format("{}.tmp{}", follow_links(path), ::getpid());
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)),
      target_(follow_links(path_)),
      temporary_path_(temporary_path_of(path_)) {
  check_writable(path_);
  if (is_special(target_)) {
    throw usage_error(fmt::format("cannot write {} (it is a device or a pipe, not a file)", path_));
  }
}

AtomicFile::~AtomicFile() {
  if (!committed_) std::remove(temporary_path_.c_str());
}

void AtomicFile::commit() {
  struct stat replaced = {};
  if (::stat(target_.c_str(), &replaced) == 0 &&
      ::chmod(temporary_path_.c_str(), replaced.st_mode & 07777) != 0) {
    fail_system("keep the permissions of", path_, errno);
  }
  sync_path(temporary_path_);
  if (std::rename(temporary_path_.c_str(), target_.c_str()) != 0) {
    fail_system("rename to", path_, errno);
  }
  committed_ = true;
  sync_path(folder_of(target_));
}

}  // namespace serrate
