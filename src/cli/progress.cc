#include "src/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "comm/launcher.h"
#include "src/cli/put.h"

namespace serrate::cli {
namespace {

using Seconds = std::chrono::duration<double>;

// "0:07", "12:40", "3:05:00".
std::string to_text(Seconds time) {
  const auto seconds = static_cast<std::int64_t>(std::llround(time.count()));
  const std::int64_t hours = seconds / 3600, minutes = seconds / 60 % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, seconds % 60)
                   : fmt::format("{}:{:02}", minutes, seconds % 60);
}

}  // namespace

// mpirun gives its ranks a terminal of their own, and passes on what they write line by line.
Progress::Progress(std::int64_t total_steps)
    : total_steps_(total_steps), on_terminal_(isatty(STDOUT_FILENO) && !launched_rank()) {}

void Progress::step(const StepResult& result) {
  using namespace std::chrono_literals;
  constexpr std::int64_t kStepsOfMean = 50;
  latest_ = result;
  ++steps_;
  loss_ += (result.loss - loss_) / static_cast<double>(std::min(steps_, kStepsOfMean));
  tokens_ += result.tokens;
  all_tokens_ += result.tokens;

  const Clock::time_point now = Clock::now();
  const auto interval = on_terminal_ ? 200ms : 10s;
  if (steps_ > 1 && now - since_ < interval) return;
  const Seconds left = Seconds(now - begin_) / steps_ * (total_steps_ - result.step);
  print(static_cast<double>(tokens_) / Seconds(now - since_).count(),
        fmt::format("{} left", to_text(left)), on_terminal_ ? "\r" : "\n");
  tokens_ = 0;
  since_ = now;
}

void Progress::finish() {
  if (steps_ == 0) return;
  const Seconds took = Clock::now() - begin_;
  print(static_cast<double>(all_tokens_) / took.count(), fmt::format("in {}", to_text(took)), "\n");
}

void Progress::print(double tokens_per_second, const std::string& time, const char* line_end) {
  put("step {}/{}  epoch {}  loss {:.4f}  {:.0f} tokens/s  {}{}{}", latest_.step, total_steps_,
      latest_.epoch, loss_, tokens_per_second, time, on_terminal_ ? "\x1b[K" : "", line_end);
  std::fflush(stdout);
}

}  // namespace serrate::cli
