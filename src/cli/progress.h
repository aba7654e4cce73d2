#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "serrate/trainer.h"

namespace serrate::cli {

/// One line about the latest step: rewritten in place on a terminal, otherwise a new line whenever
/// ten seconds have passed. The loss is a mean over some fifty steps, the speed that since the line
/// before (of the whole run at its end), and the time left goes by the mean of all steps.
class Progress {
 public:
  explicit Progress(std::int64_t total_steps);
  void step(const StepResult& result);
  /// Prints the last step and what the whole run took.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void print(double tokens_per_second, const std::string& time, const char* line_end);

  std::int64_t total_steps_;
  bool on_terminal_;
  StepResult latest_;
  std::int64_t steps_ = 0;   // of this process
  double loss_ = 0;          // the mean of late steps' losses
  std::int64_t tokens_ = 0;  // since the last line
  std::int64_t all_tokens_ = 0;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point since_ = begin_;  // of the last line
};

}  // namespace serrate::cli
