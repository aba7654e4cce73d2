#include "comm/flight_recorder.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace serrate {

FlightRecorder::FlightRecorder(int rank, int size, Device device)
    : rank_(rank), size_(size), device_(device) {}

/// Null when the ring has come round. Under the mutex.
FlightRecorder::Entry* FlightRecorder::find(std::int64_t number) {
  Entry& entry = ring_[static_cast<std::size_t>(number % kSize)];
  return entry.number == number ? &entry : nullptr;
}

std::int64_t FlightRecorder::begin(std::string operation, std::string group) {
  const std::lock_guard lock(mutex_);
  const std::int64_t number = count_++;
  ring_[static_cast<std::size_t>(number % kSize)] = {.number = number,
                                                     .operation = std::move(operation),
                                                     .group = std::move(group),
                                                     .began = Clock::now(),
                                                     .queued = {},
                                                     .done = {}};
  return number;
}

void FlightRecorder::queued(std::int64_t number, std::int64_t sent_bytes,
                            std::int64_t received_bytes) {
  const std::lock_guard lock(mutex_);
  Entry* const entry = find(number);
  if (!entry) return;
  entry->sent_bytes = sent_bytes;
  entry->received_bytes = received_bytes;
  entry->queued = Clock::now();
}

void FlightRecorder::done(std::int64_t number) {
  const std::lock_guard lock(mutex_);
  if (Entry* const entry = find(number)) entry->done = Clock::now();
}

std::string FlightRecorder::to_json(std::string_view failure) const {
  using nlohmann::ordered_json;
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  const auto ago = [&](const std::optional<Clock::time_point>& time) {
    return time ? ordered_json(std::chrono::duration<double>(now - *time).count()) : ordered_json();
  };
  ordered_json operations = ordered_json::array();
  for (std::int64_t number = std::max<std::int64_t>(0, count_ - kSize); number < count_; ++number) {
    const Entry& entry = ring_[static_cast<std::size_t>(number % kSize)];
    operations.push_back({{"number", entry.number},
                          {"operation", entry.operation},
                          {"ranks", entry.group},
                          {"stage", entry.done     ? "done"
                                    : entry.queued ? "queued"
                                                   : "headers"},
                          {"sent_bytes", entry.sent_bytes},
                          {"received_bytes", entry.received_bytes},
                          {"began_s", ago(entry.began)},
                          {"queued_s", ago(entry.queued)},
                          {"done_s", ago(entry.done)}});
  }
  const ordered_json document{{"rank", rank_},
                              {"size", size_},
                              {"device", to_string(device_)},
                              {"failure", failure},
                              {"operations", operations}};
  return document.dump(1) + "\n";
}

}  // namespace serrate
