#pragma once

#include <chrono>

#include "serrate/trainer.h"

namespace serrate::cli {

/// One line about the latest step: rewritten in place on a terminal, otherwise a new line whenever
/// ten seconds have passed.
class Progress {
 public:
  explicit Progress(std::int64_t total_steps);
  void step(const StepResult& result);
  /// Prints the last step, if it was not.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void print(const char* line_end);

  std::int64_t total_steps_;
  bool on_terminal_;
  StepResult latest_;
  bool printed_ = true;
  std::int64_t tokens_ = 0;  // since the last line
  Clock::time_point since_ = Clock::now();
};

}  // namespace serrate::cli
