#include "src/train/run_directory.h"

#include <fmt/format.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <sstream>

namespace serrate {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

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

MetricsFile::MetricsFile(const std::string& path)
    : path_(path),
      file_(std::fopen(path.c_str(), "w"), &std::fclose),
      start_seconds_(now_seconds()) {
  if (!file_) {
    throw usage_error(fmt::format("{} cannot be written ({})", path, std::strerror(errno)));
  }
}

void MetricsFile::write(const StepResult& result) {
  const std::string line = fmt::format(
      "{{\"step\": {}, \"epoch\": {}, \"loss\": {:.17g}, \"tokens\": {}, \"seconds\": {:.3f}}}\n",
      result.step, result.epoch, result.loss, result.tokens, now_seconds() - start_seconds_);
  if (std::fputs(line.c_str(), file_.get()) < 0 || std::fflush(file_.get()) != 0) {
    throw Error(fmt::format("{}: writing failed ({})", path_, std::strerror(errno)));
  }
}

void require_agreement(Communicator& communicator, const std::string& what,
                       const std::string& text) {
  const auto texts = communicator.gather_strings("agree on " + what, text);
  for (std::size_t r = 1; r < texts.size(); ++r) {
    if (texts[r] == texts[0]) continue;
    const auto [first, other] = first_difference(texts[0], texts[r]);
    throw usage_error(fmt::format("{} differ between ranks: rank 0 has {}, rank {} has {}", what,
                                  first, r, other));
  }
}

}  // namespace serrate
