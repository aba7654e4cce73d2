#include "src/run/directory.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <sstream>

#include "serrate/error.h"
#include "src/checkpoint/directory_lock.h"
#include "src/checkpoint/folder.h"
#include "src/core/say.h"

namespace serrate {
namespace {

/// The first line in which two texts differ, from each.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  std::istringstream lines_a(a), lines_b(b);
  std::string line_a, line_b;
  while (line_a == line_b && (lines_a || lines_b)) {
    if (!std::getline(lines_a, line_a)) line_a = "(nothing)";
    if (!std::getline(lines_b, line_b)) line_b = "(nothing)";
  }
  return {line_a, line_b};
}

}  // namespace

void move_run_aside(const std::string& run) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(run) || fs::is_empty(run)) return;
  std::optional<DirectoryLock> lock;
  if (fs::is_directory(checkpoint_path(run))) lock.emplace(checkpoint_path(run));
  const std::string name = fs::canonical(run);
  const std::string moved = rename_to_free_name(name, name);
  say(fmt::format("--fresh: the run that was in {} is now in {}", run, moved));
}

void require_agreement(Communicator& communicator, const std::string& what,
                       const std::string& text) {
  const auto texts = communicator.gather_strings("agreement", text);
  for (std::size_t r = 1; r < texts.size(); ++r) {
    if (texts[r] == texts[0]) continue;
    const auto [first, other] = first_difference(texts[0], texts[r]);
    throw usage_error(fmt::format("{} differ between ranks: rank 0 has {}, rank {} has {}", what,
                                  first, r, other));
  }
}

}  // namespace serrate
