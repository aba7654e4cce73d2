#include "src/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include "src/cli/launch.h"
#include "src/cli/put.h"

namespace serrate::cli {

// mpirun gives its ranks a terminal of their own, and passes on what they write line by line.
Progress::Progress(std::int64_t total_steps)
    : total_steps_(total_steps), on_terminal_(isatty(STDOUT_FILENO) && !mpirun_rank()) {}

void Progress::step(const StepResult& result) {
  using namespace std::chrono_literals;
  latest_ = result;
  tokens_ += result.tokens;
  printed_ = false;
  const auto interval = on_terminal_ ? 200ms : 10s;
  if (result.step == 1 || Clock::now() - since_ >= interval) print(on_terminal_ ? "\r" : "\n");
}

void Progress::finish() {
  if (!printed_ || on_terminal_) print("\n");
}

void Progress::print(const char* line_end) {
  const std::chrono::duration<double> elapsed = Clock::now() - since_;
  put("step {}/{}  epoch {}  loss {:.4f}  {:.0f} tokens/s{}", latest_.step, total_steps_,
      latest_.epoch, latest_.loss, static_cast<double>(tokens_) / elapsed.count(), line_end);
  std::fflush(stdout);
  printed_ = true;
  tokens_ = 0;
  since_ = Clock::now();
}

}  // namespace serrate::cli
