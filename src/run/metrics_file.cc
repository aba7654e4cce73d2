#include "src/run/metrics_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "serrate/error.h"
#include "src/checkpoint/folder.h"
#include "src/core/say.h"
#include "src/io/atomic_file.h"

namespace serrate {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The number behind `name` in a line of ours; false when there is none.
template <typename T>
bool read_field(std::string_view line, std::string_view name, T& value) {
  const std::size_t at = line.find(name);
  if (at == std::string_view::npos) return false;
  const char* const begin = line.data() + at + name.size();
  return std::from_chars(begin, line.data() + line.size(), value).ec == std::errc();
}

/// The lines of steps up to `steps_done`, each above the line before. Steps may be missing: those
/// that a resumed training wrote to another file.
struct Kept {
  std::int64_t bytes = 0;
  std::int64_t first = 0, last = 0;  // their steps; 0 when there are none
  double seconds = 0;
  std::int64_t last_of_all = 0;  // the step of the last line that is whole
};

Kept find_kept(const std::string& path, std::int64_t steps_done) {
  Kept kept;
  std::ifstream input(path, std::ios::binary);
  if (!input) throw Error(fmt::format("{} cannot be read ({})", path, std::strerror(errno)));
  std::string line;
  for (bool keeping = true; std::getline(input, line) && !input.eof();) {
    std::int64_t step = 0;
    double seconds = 0;
    const bool ours = line.starts_with("{\"step\": ") && line.ends_with('}') &&
                      read_field(line, "\"step\": ", step) &&
                      read_field(line, "\"seconds\": ", seconds);
    if (!ours) break;
    kept.last_of_all = step;
    keeping = keeping && step <= steps_done && step > kept.last;
    if (!keeping) continue;
    if (kept.first == 0) kept.first = step;
    kept.last = step;
    kept.seconds = seconds;
    kept.bytes += static_cast<std::int64_t>(line.size()) + 1;
  }
  if (input.bad()) throw Error(fmt::format("{} cannot be read ({})", path, std::strerror(errno)));
  return kept;
}

[[noreturn]] void fail_write(const std::string& path) {
  throw Error(fmt::format("{}: writing failed ({})", path, std::strerror(errno)));
}

void move_aside(const std::string& path, const char* why) {
  const std::string real = std::filesystem::canonical(path);  // the file, not a link to it
  const std::string moved = rename_to_free_name(real, real);
  say(fmt::format("{} {}; it is now {}", path, why, moved));
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, std::int64_t steps_done) : path_(path) {
  struct stat status{};
  const bool exists = ::stat(path.c_str(), &status) == 0;
  // /dev/stdout may be a file, but it is not ours to cut or to move.
  const bool is_device = path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
  const bool is_stream = is_device || path.starts_with("/proc/");
  is_plain_ = !is_stream && (!exists || S_ISREG(status.st_mode));
  Kept kept;
  if (exists && is_plain_ && status.st_size > 0) {
    kept = find_kept(path, steps_done);
    if (steps_done == 0 && kept.last_of_all > 0) {
      move_aside(path, "has the steps of a training that left no checkpoint, or of another one");
    } else if (kept.last == 0) {
      move_aside(path, "does not have the steps of this run");
    }
  }
  descriptor_ =
      ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | (is_plain_ ? 0 : O_APPEND), 0666);
  // A pipe, or a device that cannot be read.
  if (descriptor_ < 0 && !is_plain_) descriptor_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (descriptor_ < 0) {
    throw usage_error(fmt::format("{} cannot be written ({})", path, std::strerror(errno)));
  }
  start_seconds_ = now_seconds() - kept.seconds;
  if (!is_plain_) return;
  if (kept.last_of_all > kept.last && kept.last > 0) {
    say(
        fmt::format("{}: the lines after step {} are cut off, up to that of step {}: they come "
                    "after the checkpoint",
                    path, kept.last, kept.last_of_all));
  }
  if (kept.last < steps_done) {
    say(fmt::format("warning: {} has no lines of the steps {} to {}, which were done before", path,
                    kept.last + 1, steps_done));
  }
  while (::ftruncate(descriptor_, kept.bytes) != 0) {
    if (errno != EINTR) fail_write(path);
  }
  if (::lseek(descriptor_, 0, SEEK_END) < 0) fail_write(path);
  sync();
  // Its name, too, has to outlast a loss of power: checkpoints will rely on the lines.
  sync_path(std::filesystem::canonical(path).parent_path());
}

MetricsFile::~MetricsFile() {
  ::close(descriptor_);
}

void MetricsFile::write(const StepResult& result) {
  const std::string line = fmt::format(
      "{{\"step\": {}, \"epoch\": {}, \"loss\": {:.17g}, \"tokens\": {}, \"seconds\": {:.3f}}}\n",
      result.step, result.epoch, result.loss, result.tokens, now_seconds() - start_seconds_);
  for (std::string_view rest = line; !rest.empty();) {
    const ssize_t count = ::write(descriptor_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_write(path_);
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
}

void MetricsFile::sync() {
  if (!is_plain_) return;
  while (::fsync(descriptor_) != 0) {
    if (errno != EINTR) fail_write(path_);
  }
}

}  // namespace serrate
