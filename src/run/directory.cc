#include "src/run/directory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <list>
#include <optional>

#include "serrate/error.h"
#include "src/checkpoint/directory_lock.h"
#include "src/checkpoint/folder.h"
#include "src/core/say.h"
#include "src/io/output_file.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

/// A path that has to lead to the new run must not go through folders of the one that is moved,
/// neither by itself nor by the text of a link.
void check_leads_around(const std::string& run) {
  const std::string name = fs::canonical(run);  // throws where links lead in circles
  fs::path at = fs::current_path();             // without links
  const fs::path path = run;
  std::list<fs::path> ahead(path.begin(), path.end());
  while (!ahead.empty()) {
    const fs::path next = ahead.front();
    ahead.pop_front();
    if (next == "..") {
      at = at.parent_path();
    } else if (next != "." && !next.empty()) {
      at /= next;
    }
    if (fs::is_symlink(at)) {
      const fs::path target = fs::read_symlink(at);
      at = at.parent_path();
      ahead.insert(ahead.begin(), target.begin(), target.end());
    } else if (at.string().starts_with(name + "/")) {
      throw usage_error(
          fmt::format("--fresh: --output {} leads through {} (which is moved with the run): give "
                      "it as {}",
                      run, at.string(), name));
    }
  }
}

/// Returns where the new run is to be: by another name than `run` when that leads through the run
/// that is moved ("run/../link").
std::string move_run_aside(const std::string& run) {
  if (!fs::is_directory(run) || fs::is_empty(run)) return run;
  // "." would lead to the run that was moved, and "run/." to nothing.
  const std::string last = fs::path(run).filename();
  if (last == "." || last == "..") {
    throw usage_error(
        fmt::format("--fresh: --output {} does not end with the name of its folder (which the new "
                    "run is to have): give it, as in {}",
                    run, fs::canonical(run).string()));
  }
  check_leads_around(run);
  std::optional<DirectoryLock> lock;
  if (fs::is_directory(checkpoint_path(run))) lock.emplace(checkpoint_path(run));
  const std::string name = fs::canonical(run);
  const std::string moved = rename_to_free_name(name, name);
  say(fmt::format("--fresh: the run that was in {} is now in {}", run, moved));
  return name;
}

}  // namespace

void make_run_directory(const std::string& run, bool fresh) {
  std::string folder = run;
  while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
  if (fresh) folder = move_run_aside(folder);
  try {
    make_folders(follow_links(folder));
  } catch (const Error& error) {
    throw usage_error(fmt::format("--output {}: {}", run, error.what()));
  }
  if (::access(run.c_str(), W_OK) != 0) {
    throw usage_error(fmt::format("--output {} cannot be written ({})", run, std::strerror(errno)));
  }
}

}  // namespace serrate
