#include "src/io/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "serrate/error.h"

namespace serrate {
namespace {

std::string folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

[[noreturn]] void fail_system(const char* action, const std::string& path, int error) {
  throw Error(fmt::format("cannot {} {} ({})", action, path, std::strerror(error)));
}

}  // namespace

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

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), temporary_path_(fmt::format("{}.tmp{}", path_, ::getpid())) {
  if (!std::filesystem::is_directory(folder_of(path_))) {
    throw usage_error(
        fmt::format("cannot write {} (there is no folder {}) create it or name another", path_,
                    folder_of(path_)));
  }
}

AtomicFile::~AtomicFile() {
  if (!committed_) std::remove(temporary_path_.c_str());
}

void AtomicFile::commit() {
  sync_path(temporary_path_);
  if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0)
    fail_system("rename to", path_, errno);
  committed_ = true;
  sync_path(folder_of(path_));
}

}  // namespace serrate
