#include "src/run/metrics_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "serrate/error.h"
#include "src/checkpoint/folder.h"
#include "src/core/say.h"
#include "src/io/atomic_file.h"
#include "src/io/file_calls.h"

namespace serrate {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string to_line(const StepResult& result, double seconds) {
  return fmt::format(
      "{{\"step\": {}, \"epoch\": {}, \"loss\": {:.17g}, \"tokens\": {}, \"seconds\": {:.3f}}}",
      result.step, result.epoch, result.loss, result.tokens, seconds);
}

/// The number behind `name`; 0 when there is none.
template <typename T>
T read_field(std::string_view line, std::string_view name) {
  T value = 0;
  if (const std::size_t at = line.find(name); at != std::string_view::npos) {
    const char* const begin = line.data() + at + name.size();
    std::from_chars(begin, line.data() + line.size(), value);
  }
  return value;
}

struct Line {
  StepResult result;
  double seconds = 0;
};

/// Nothing where a single character is not as to_line() writes it.
std::optional<Line> line_from_text(std::string_view text) {
  const Line line{.result = {.step = read_field<std::int64_t>(text, "\"step\": "),
                             .epoch = read_field<std::int64_t>(text, "\"epoch\": "),
                             .loss = read_field<double>(text, "\"loss\": "),
                             .tokens = read_field<std::int64_t>(text, "\"tokens\": ")},
                  .seconds = read_field<double>(text, "\"seconds\": ")};
  if (!std::isfinite(line.result.loss) || to_line(line.result, line.seconds) != text) {
    return std::nullopt;
  }
  return line;
}

/// Calls `f` with each line and, where it is one of ours, what it says. A line without its end is
/// none.
void for_each_line(const std::string& path,
                   const std::function<void(const std::string&, const std::optional<Line>&)>& f) {
  std::ifstream input(path, std::ios::binary);
  if (!input) throw Error(fmt::format("{} cannot be read ({})", path, std::strerror(errno)));
  for (std::string text; std::getline(input, text);) {
    f(text, input.eof() ? std::nullopt : line_from_text(text));
  }
  if (input.bad()) throw Error(fmt::format("{} cannot be read ({})", path, std::strerror(errno)));
}

/// What of a file a training after step `steps_done` keeps: the lines of steps up to it, each above
/// the one before. Steps may be missing: those that a resumed training wrote to another file.
struct Kept {
  std::int64_t lines = 0, bytes = 0;
  std::int64_t last = 0;  // the step of the last one; 0 when there is none
  double seconds = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> missing;  // first and last step of each gap
  std::int64_t first_other = 0;     // number of the first line that is not kept; 0: all are
  bool is_beginning = true;         // no line that is kept comes after one that is not
  std::int64_t last_of_others = 0;  // the last step among the lines that are not kept

  /// Whether a line that is not kept takes the place of one that should be there. What comes after
  /// the line of the last step is not damage: its steps are done again.
  bool is_damaged(std::int64_t steps_done) const {
    return first_other > 0 && (!is_beginning || last < steps_done);
  }
};

Kept find_kept(const std::string& path, std::int64_t steps_done,
               const std::function<void(const std::string&)>& on_kept = {}) {
  Kept kept;
  std::int64_t number = 0;
  for_each_line(path, [&](const std::string& text, const std::optional<Line>& line) {
    number += 1;
    const std::int64_t step = line ? line->result.step : 0;
    if (step <= kept.last || step > steps_done) {
      if (kept.first_other == 0) kept.first_other = number;
      if (line) kept.last_of_others = step;
      return;
    }
    if (kept.first_other > 0) kept.is_beginning = false;
    if (step > kept.last + 1) kept.missing.emplace_back(kept.last + 1, step - 1);
    kept.last = step;
    kept.lines += 1;
    kept.bytes += static_cast<std::int64_t>(text.size()) + 1;
    kept.seconds = line->seconds;
    if (on_kept) on_kept(text);
  });
  if (kept.last < steps_done) kept.missing.emplace_back(kept.last + 1, steps_done);
  return kept;
}

std::string ranges_text(const std::vector<std::pair<std::int64_t, std::int64_t>>& ranges) {
  constexpr std::size_t kMost = 5;
  std::string text;
  for (std::size_t i = 0; i < std::min(ranges.size(), kMost); ++i) {
    const auto& [first, last] = ranges[i];
    text += fmt::format(
        "{}{}", i == 0 ? "" : ", ",
        first == last ? fmt::format("{}", first) : fmt::format("{} to {}", first, last));
  }
  return ranges.size() > kMost ? text + " and others" : text;
}

[[noreturn]] void fail_write(const std::string& path) {
  throw Error(fmt::format("{}: writing failed ({})", path, std::strerror(errno)));
}

std::string move_aside(const std::string& path) {
  const std::string real = std::filesystem::canonical(path);  // the file, not a link to it
  return rename_to_free_name(real, real);
}

void write_all(int descriptor, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t count = ::write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_write(path);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

/// A file, or one to be made, and not what is written through.
bool is_plain_file(const std::string& path) {
  // /dev/stdout may be a file, but it is not ours to cut or to move.
  const bool is_device = path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
  if (is_device || path.starts_with("/proc/")) return false;
  struct stat status{};
  return ::stat(path.c_str(), &status) != 0 || S_ISREG(status.st_mode);
}

FileDescriptor open_special(const std::string& path) {
  FileDescriptor file(open_descriptor(path, O_RDWR | O_CREAT | O_APPEND));
  // A pipe, or a device that cannot be read.
  if (file.number() < 0) file = FileDescriptor(open_descriptor(path, O_WRONLY));
  if (file.number() < 0) {
    throw usage_error(fmt::format("{} cannot be written ({})", path, std::strerror(errno)));
  }
  return file;
}

/// A plain file is kept from other trainings while it is open.
FileDescriptor open_to_write(const std::string& path, bool is_plain) {
  if (!is_plain) return open_special(path);
  LockedFile opened = open_locked(path, O_RDWR | O_CREAT);
  if (!opened.is_ours) {
    throw usage_error(
        fmt::format("{} is in use by another training (the two would mix their lines): wait for it "
                    "or name another file for the metrics",
                    path));
  }
  return std::move(opened.file);
}

std::int64_t size_of(const FileDescriptor& file, const std::string& path) {
  struct stat status{};
  if (::fstat(file.number(), &status) != 0) {
    throw Error(fmt::format("{} cannot be read ({})", path, std::strerror(errno)));
  }
  return status.st_size;
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, std::int64_t steps_done)
    : path_(path), is_plain_(is_plain_file(path)), file_(open_to_write(path, is_plain_)) {
  Kept kept;
  std::string moved;  // where what was in the file is now, if not there
  const bool has_lines = is_plain_ && size_of(file_, path) > 0;
  if (has_lines) {
    kept = find_kept(path, steps_done);
    if (steps_done == 0 && kept.last_of_others > 0) {
      moved = move_aside(path);
      say(
          fmt::format("{} has the steps of a training that left no checkpoint, or of another one; "
                      "it is now {}",
                      path, moved));
    } else if (kept.last == 0) {
      moved = move_aside(path);
      say(fmt::format("{} does not have the steps of this run; it is now {}", path, moved));
    } else if (kept.is_damaged(steps_done)) {
      moved = move_aside(path);
      say(
          fmt::format("warning: line {} of {} is damaged or out of order; the file is now {}, and "
                      "its {} good lines of steps up to {} stay",
                      kept.first_other, path, moved, kept.lines, steps_done));
    }
  } else if (is_plain_ && steps_done > 0) {
    kept.missing.emplace_back(1, steps_done);
  }
  if (!moved.empty()) file_ = open_to_write(path, is_plain_);
  start_seconds_ = now_seconds() - kept.seconds;
  if (!is_plain_) return;
  if (!kept.missing.empty()) {
    say(fmt::format("warning: {} has no lines of the steps {}, which were done before", path,
                    ranges_text(kept.missing)));
  }
  if (!moved.empty()) {
    find_kept(moved, steps_done,
              [&](const std::string& line) { write_all(file_.number(), line + "\n", path); });
  } else if (kept.last > 0 && kept.first_other > 0) {
    say(
        fmt::format("{} is cut off after the line of step {}{}: what follows comes after the "
                    "checkpoint",
                    path, kept.last,
                    kept.last_of_others > kept.last
                        ? fmt::format(", up to that of step {}", kept.last_of_others)
                        : ""));
  }
  while (::ftruncate(file_.number(), kept.bytes) != 0) {
    if (errno != EINTR) fail_write(path);
  }
  if (::lseek(file_.number(), 0, SEEK_END) < 0) fail_write(path);
  sync();
  // Its name, too, has to outlast a loss of power: checkpoints will rely on the lines.
  sync_path(std::filesystem::canonical(path).parent_path());
}

void MetricsFile::write(const StepResult& result) {
  write_all(file_.number(), to_line(result, now_seconds() - start_seconds_) + "\n", path_);
}

void MetricsFile::sync() {
  if (!is_plain_) return;
  while (::fsync(file_.number()) != 0) {
    if (errno != EINTR) fail_write(path_);
  }
}

}  // namespace serrate
