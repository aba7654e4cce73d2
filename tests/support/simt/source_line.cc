#include "tests/support/simt/source_line.h"

#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

namespace simt {
namespace {

// One addr2line that answers for as long as the program runs: it reads the debug information once.
class Addr2line {
 public:
  Addr2line() {
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) return;
    const std::string program = "/proc/" + std::to_string(getpid()) + "/exe";
    const char* arguments[] = {"addr2line", "-Cif", "-e", program.c_str(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
    pid_t child = 0;
    if (posix_spawnp(&child, "addr2line", &actions, nullptr, const_cast<char**>(arguments),
                     environ) == 0) {
      to_ = fdopen(to[1], "w");
      from_ = fdopen(from[0], "r");
    }
    posix_spawn_file_actions_destroy(&actions);
    close(to[0]);
    close(from[1]);
  }

  /// Function and place of the innermost inlined function, then of those that it is inlined in.
  std::vector<std::string> lines(std::size_t address) {
    std::vector<std::string> result;
    if (!to_) return result;
    // An address that no function has says where the answer ends.
    std::fprintf(to_, "0x%zx\n0xffffffffffffffff\n", address);
    std::fflush(to_);
    for (;;) {
      result.push_back(line());
      result.push_back(line());
      if (result[result.size() - 2].starts_with("??") && result.size() > 2) break;
    }
    result.resize(result.size() - 2);
    return result;
  }

 private:
  std::string line() {
    std::string text;
    for (int c = std::fgetc(from_); c != '\n'; c = std::fgetc(from_)) {
      if (c == EOF) return "??";
      text += static_cast<char>(c);
    }
    return text;
  }

  std::FILE *to_ = nullptr, *from_ = nullptr;
};

std::string short_name(std::string name) {
  for (const char* hidden : {"(anonymous namespace)::", "serrate::", "simt::"}) {
    const std::string text = hidden;
    for (auto at = name.find(text); at != std::string::npos; at = name.find(text)) {
      name.erase(at, text.size());
    }
  }
  // The parameters begin at the first parenthesis outside of template arguments.
  int depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0) {
      name.erase(i);
      break;
    }
  }
  if (name.starts_with("void ")) name.erase(0, 5);
  return name;
}

Place parse_place(std::string text) {
  text = text.substr(0, text.find(' '));  // "(discriminator 3)"
  const auto colon = text.rfind(':'), slash = text.rfind('/');
  Place place;
  if (colon == std::string::npos) return {text, 0};
  place.line = std::atoi(text.c_str() + colon + 1);
  place.file = text.substr(slash == std::string::npos ? 0 : slash + 1,
                           colon - (slash == std::string::npos ? 0 : slash + 1));
  return place;
}

}  // namespace

Program find_program() {
  Program found{};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        Program& p = *static_cast<Program*>(data);
        p.base = info->dlpi_addr;
        p.begin = ~std::uintptr_t{0};
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          const std::uintptr_t begin = p.base + segment.p_vaddr, end = begin + segment.p_memsz;
          p.begin = std::min(p.begin, begin);
          p.end = std::max(p.end, end);
          if (segment.p_flags & PF_W) p.data_begin = begin, p.data_end = end;
        }
        return 1;  // the program itself comes first
      },
      &found);
  return found;
}

SourceLine source_line(std::uintptr_t code) {
  static std::mutex mutex;
  static std::map<std::uintptr_t, SourceLine> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(code);
  if (found != known.end()) return found->second;
  static Addr2line addr2line;
  const std::vector<std::string> lines = addr2line.lines(code - program().base);
  SourceLine result;
  for (std::size_t i = 0; i + 1 < lines.size(); i += 2) {
    result.function = short_name(lines[i]);
    // What our own headers do, the line that calls them does.
    if (lines[i + 1].find("/simt/include/") != std::string::npos) continue;
    const Place place = parse_place(lines[i + 1]);
    if (result.place.line == 0) result.place = place;
    result.chain += (result.chain.empty() ? "" : ", inlined in ") + place.file + ":" +
                    std::to_string(place.line);
  }
  return known[code] = result;
}

std::string function_name(const void* function) {
  return source_line(reinterpret_cast<std::uintptr_t>(function)).function;
}

}  // namespace simt
