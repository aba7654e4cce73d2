#include "src/io/machine_memory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace serrate {
namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();

// The number after the first word `key` of a file, or its first word when `key` is empty.
std::optional<std::int64_t> number_in(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::int64_t number = 0;
  if (key.empty()) return file >> number ? std::optional(number) : std::nullopt;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    if (words >> word >> number && word == key) return number;
  }
  return std::nullopt;
}

struct Names {
  const char* limit;
  const char* usage;
  const char* inactive_files;
};
constexpr Names kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr Names kVersion2{"memory.max", "memory.current", "inactive_file"};

// Lowers `memory` to what the group `path` under `mount` and the groups around it have.
void apply_groups(const std::string& mount, std::filesystem::path path, const Names& names,
                  MachineMemory& memory) {
  for (path = path.relative_path();; path = path.parent_path()) {
    const std::string group = mount + "/" + (path.empty() ? "" : path.string() + "/");
    const auto limit = number_in(group + names.limit, "");
    const auto usage = number_in(group + names.usage, "");
    if (limit && usage) {
      const auto files = number_in(group + "memory.stat", names.inactive_files);
      memory.total = std::min(memory.total, *limit);
      memory.available = std::min(memory.available,
                                  std::max<std::int64_t>(*limit - *usage + files.value_or(0), 0));
    }
    if (path.empty()) return;
  }
}

}  // namespace

MachineMemory machine_memory(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  constexpr std::int64_t kKiB = 1024;
  MachineMemory memory{number_in(meminfo, "MemTotal:").value_or(kUnlimited / kKiB) * kKiB,
                       number_in(meminfo, "MemAvailable:").value_or(kUnlimited / kKiB) * kKiB};
  const std::string mount = root + "/sys/fs/cgroup";
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // number:controllers:path, as in "4:memory:/job" (version 1) or "0::/job" (version 2)
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers == "memory") apply_groups(mount + "/memory", path, kVersion1, memory);
    if (controllers.empty()) apply_groups(mount, path, kVersion2, memory);
  }
  return memory;
}

}  // namespace serrate
