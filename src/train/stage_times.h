#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "serrate/event.h"
#include "serrate/stream.h"

namespace serrate {

/// Seconds per stage, in the order in which stages first ran, by events on the stream that makes
/// it: no stage waits for the device. Stages of different streams may run at once, and each time
/// then has in it what the stage waits for. Nothing is recorded before measure().
class StageTimes {
 public:
  void measure() { is_measured_ = true; }
  void start(const Stream& stream);
  /// What was queued since start() or the last lap, on the same stream, was `stage`.
  void lap(const char* stage, const Stream& stream);
  /// Waits for the end of the last lap.
  const std::vector<std::pair<std::string, double>>& seconds();

 private:
  static constexpr std::size_t kNoStage = static_cast<std::size_t>(-1);
  struct Mark {
    std::size_t stage;  // that ends here
    Event event;
  };

  void mark(std::size_t stage, const Stream& stream);
  void add_first();
  std::size_t index_of(const char* stage);

  bool is_measured_ = false;
  std::vector<std::pair<std::string, double>> seconds_;
  std::deque<Mark> marks_;  // the last one added up and those after it
  std::vector<Event> unused_;
};

}  // namespace serrate
