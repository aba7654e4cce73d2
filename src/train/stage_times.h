#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "serrate/stream.h"

namespace serrate {

/// Seconds per stage of the step, in the order in which stages first ran.
class StageTimes {
 public:
  void start() { last_ = Clock::now(); }
  /// The time since start() or the last lap was spent in `stage`; on a device, waits for it.
  void lap(const char* stage, const Stream& stream) {
    stream.synchronize();
    const Clock::time_point now = Clock::now();
    entry(stage) += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  const std::vector<std::pair<std::string, double>>& seconds() const { return seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  double& entry(const char* stage) {
    for (auto& [name, seconds] : seconds_) {
      if (name == stage) return seconds;
    }
    return seconds_.emplace_back(stage, 0.0).second;
  }

  Clock::time_point last_;
  std::vector<std::pair<std::string, double>> seconds_;
};

}  // namespace serrate
