#include "src/checkpoint/folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "serrate/error.h"
#include "src/io/atomic_file.h"
#include "src/io/read_error.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kUnfinished = "tmp.";

[[noreturn]] void fail(const char* action, const std::string& path, int error) {
  throw Error(fmt::format("cannot {} {} ({})", action, path, std::strerror(error)));
}

std::string parent_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

/// Gives both names to each other's files; where the file system cannot, one after the other.
void exchange(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) fail("rename to", to, errno);
  const std::string aside = rename_to_free_name(to, from + ".replaced");
  if (std::rename(from.c_str(), to.c_str()) != 0) fail("rename to", to, errno);
  if (std::rename(aside.c_str(), from.c_str()) != 0) fail("rename to", from, errno);
}

}  // namespace

std::string checkpoint_folder(const std::string& directory, std::int64_t step) {
  return fmt::format("{}/step_{}", directory, step);
}

std::string unfinished_folder(const std::string& directory, std::int64_t step) {
  return fmt::format("{}/{}step_{}", directory, kUnfinished, step);
}

std::vector<FoundCheckpoint> list_checkpoints(const std::string& directory) {
  constexpr std::string_view kPrefix = "step_";
  std::vector<FoundCheckpoint> found;
  std::error_code failure;
  for (fs::directory_iterator entry(directory, failure), end; !failure && entry != end;
       entry.increment(failure)) {
    const std::string name = entry->path().filename();
    if (!name.starts_with(kPrefix)) continue;
    std::int64_t step = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
    if (step < 0 || name != fmt::format("{}{}", kPrefix, step)) continue;  // not a name of ours
    found.push_back({entry->path(), step});
  }
  if (failure && failure != std::errc::no_such_file_or_directory) {
    throw Error(fmt::format("{} cannot be read ({})", directory, failure.message()),
                kind_of_read_error(failure.value()));
  }
  std::ranges::sort(found, std::greater(), &FoundCheckpoint::step);
  return found;
}

void make_folders(const std::string& path) {
  if (::mkdir(path.c_str(), 0777) == 0) return sync_path(parent_of(path));
  if (errno == EEXIST && fs::is_directory(path)) return;
  if (errno != ENOENT || parent_of(path) == path) fail("make the folder", path, errno);
  make_folders(parent_of(path));
  if (::mkdir(path.c_str(), 0777) != 0) fail("make the folder", path, errno);
  sync_path(parent_of(path));
}

void make_unfinished(const std::string& directory, std::int64_t step) {
  const std::string folder = unfinished_folder(directory, step);
  std::error_code failure;
  fs::remove_all(folder, failure);
  if (failure) fail("remove", folder, failure.value());
  if (::mkdir(folder.c_str(), 0777) != 0) fail("make the folder", folder, errno);
}

std::vector<std::string> remove_unfinished(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename();
    if (name.starts_with(kUnfinished)) names.push_back(name);
  }
  for (const std::string& name : names) fs::remove_all(fs::path(directory) / name);
  return names;
}

void commit_checkpoint(const std::string& directory, std::int64_t step) {
  const std::string from = unfinished_folder(directory, step);
  const std::string to = checkpoint_folder(directory, step);
  sync_path(from);
  if (fs::exists(fs::symlink_status(to))) {
    exchange(from, to);
    sync_path(directory);
    fs::remove_all(from);
    return;
  }
  if (std::rename(from.c_str(), to.c_str()) != 0) fail("rename to", to, errno);
  sync_path(directory);
}

// A folder is renamed before its files go, so that no half of it ever looks like a checkpoint.
void remove_older(const std::string& directory, int keep) {
  const auto found = list_checkpoints(directory);
  for (std::size_t i = static_cast<std::size_t>(keep); i < found.size(); ++i) {
    const std::string going = unfinished_folder(directory, found[i].step);
    if (std::rename(found[i].path.c_str(), going.c_str()) != 0) {
      fail("remove", found[i].path, errno);
    }
    fs::remove_all(going);
  }
}

std::string rename_to_free_name(const std::string& from, const std::string& wanted) {
  for (int number = 0;; ++number) {
    const std::string to = number == 0 ? wanted : fmt::format("{}.{}", wanted, number);
    if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) {
      sync_path(parent_of(to));
      return to;
    }
    if (errno == EEXIST) continue;
    if (errno != EINVAL && errno != ENOSYS) fail("rename", from, errno);
    if (fs::exists(fs::symlink_status(to))) continue;
    if (std::rename(from.c_str(), to.c_str()) != 0) fail("rename", from, errno);
    sync_path(parent_of(to));
    return to;
  }
}

std::string set_aside(const FoundCheckpoint& checkpoint) {
  return rename_to_free_name(
      checkpoint.path,
      fmt::format("{}/damaged.step_{}", parent_of(checkpoint.path), checkpoint.step));
}

void fail_read(const std::string& path, int error) {
  throw Error(fmt::format("{} cannot be read ({})", path, std::strerror(error)),
              kind_of_damage(error));
}

}  // namespace serrate
