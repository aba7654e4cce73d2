#include "src/train/stage_times.h"

#include <algorithm>

namespace serrate {

void StageTimes::start(const Stream& stream) {
  if (is_measured_) mark(kNoStage, stream);
}

void StageTimes::lap(const char* stage, const Stream& stream) {
  if (is_measured_) mark(index_of(stage), stream);
}

const std::vector<std::pair<std::string, double>>& StageTimes::seconds() {
  while (marks_.size() > 1) add_first();
  return seconds_;
}

// What the device has passed is added up on the way, so that a long training holds few events.
void StageTimes::mark(std::size_t stage, const Stream& stream) {
  if (unused_.empty()) unused_.emplace_back(stream.device(), EventUse::kTime);
  marks_.push_back({stage, std::move(unused_.back())});
  unused_.pop_back();
  marks_.back().event.record(stream);
  while (marks_.size() > 1 && marks_[1].event.is_reached()) add_first();
}

void StageTimes::add_first() {
  const Mark& end = marks_[1];
  if (end.stage != kNoStage) {
    seconds_[end.stage].second += end.event.seconds_since(marks_.front().event);
  }
  unused_.push_back(std::move(marks_.front().event));
  marks_.pop_front();
}

std::size_t StageTimes::index_of(const char* stage) {
  const auto found =
      std::ranges::find_if(seconds_, [&](const auto& s) { return s.first == stage; });
  if (found != seconds_.end()) return static_cast<std::size_t>(found - seconds_.begin());
  seconds_.emplace_back(stage, 0.0);
  return seconds_.size() - 1;
}

}  // namespace serrate
