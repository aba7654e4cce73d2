#include "src/run/directory.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "serrate/error.h"
#include "src/checkpoint/directory_lock.h"
#include "src/checkpoint/folder.h"
#include "src/core/say.h"

namespace serrate {
void move_run_aside(const std::string& run) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(run) || fs::is_empty(run)) return;
  std::optional<DirectoryLock> lock;
  if (fs::is_directory(checkpoint_path(run))) lock.emplace(checkpoint_path(run));
  const std::string name = fs::canonical(run);
  const std::string moved = rename_to_free_name(name, name);
  say(fmt::format("--fresh: the run that was in {} is now in {}", run, moved));
}

}  // namespace serrate
