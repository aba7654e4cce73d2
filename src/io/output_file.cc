#include "src/io/output_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <tuple>

#include "serrate/error.h"
#include "src/io/atomic_file.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

// What tells one file from another: device and inode; of a file to be made, those of its folder,
// and its name; of one whose folder is to be made too, its whole path.
using Identity = std::tuple<dev_t, ino_t, std::string>;

std::optional<Identity> identity(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) == 0) return Identity(status.st_dev, status.st_ino, "");
  const std::string target = follow_links(path);
  if (::stat(folder_of(target).c_str(), &status) != 0) {
    std::error_code failure;
    const fs::path whole = fs::weakly_canonical(fs::absolute(target), failure);
    return failure ? std::nullopt : std::optional(Identity(0, 0, whole.string()));
  }
  return Identity(status.st_dev, status.st_ino, fs::path(target).filename().string());
}

bool is_same_file(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty() || is_special(a)) return false;
  const auto identity_a = identity(a);
  return identity_a && identity_a == identity(b);
}

}  // namespace

void check_outputs(std::span<const NamedPath> inputs, std::span<const NamedPath> outputs) {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const NamedPath& output = outputs[i];
    for (const NamedPath& input : inputs) {
      if (!is_same_file(output.path, input.path)) continue;
      throw usage_error(fmt::format("{} {} would overwrite {} {} (they are one file): name another",
                                    output.name, output.path, input.name, input.path));
    }
    for (const NamedPath& other : outputs.first(i)) {
      if (!is_same_file(output.path, other.path)) continue;
      throw usage_error(fmt::format("{} {} and {} {} are one file (name two)", other.name,
                                    other.path, output.name, output.path));
    }
  }
}

void check_writable(const std::string& path) {
  const std::string target = follow_links(path);
  const auto fail = [&](const std::string& why) {
    throw usage_error(fmt::format("cannot write {} ({})", path, why));
  };
  if (!fs::is_directory(folder_of(target))) {
    throw usage_error(
        fmt::format("cannot write {} (there is no folder {}): create it or name another", path,
                    folder_of(target)));
  }
  if (fs::is_directory(target)) fail("it is a folder");
  const std::string changed = is_special(target) ? target : folder_of(target);
  if (::access(changed.c_str(), W_OK) != 0) fail(std::strerror(errno));
}

std::string follow_links(const std::string& path) {
  constexpr int kMostLinks = 40;  // as the kernel
  fs::path target = path;
  std::error_code failure;
  for (int i = 0; fs::is_symlink(fs::symlink_status(target, failure)); ++i) {
    const fs::path next = fs::read_symlink(target, failure);
    if (failure || i == kMostLinks) {
      throw usage_error(fmt::format("{} cannot be followed (too many symbolic links)", path));
    }
    target = next.is_absolute() ? next : target.parent_path() / next;
  }
  return target.string();
}

bool is_special(const std::string& path) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) return false;
  return !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

}  // namespace serrate
