#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "serrate/stream.h"

namespace serrate {

/// The last operations of a rank and how far each got, for whoever looks into why a job hung.
/// Several threads may use it.
class FlightRecorder {
 public:
  static constexpr std::int64_t kSize = 64;

  FlightRecorder(int rank, int size, Device device);

  int rank() const { return rank_; }

  /// The headers of `operation` ("all_to_all \"input_dist\" #12") are being exchanged among the
  /// ranks of `group` ("0, 2"). Returns its number, from 0.
  std::int64_t begin(std::string operation, std::string group);
  /// Its rows, of so many bytes, are in a stream.
  void queued(std::int64_t number, std::int64_t sent_bytes, std::int64_t received_bytes);
  /// It is known to be over.
  void done(std::int64_t number);

  /// {"rank", "size", "device", "failure", "operations": [{"number", "operation", "ranks", "stage",
  /// "sent_bytes", "received_bytes", "began_s", "queued_s", "done_s"}, ...]}, oldest first. The
  /// stage is "headers", "queued" or "done"; times are in seconds before this call, or null.
  std::string to_json(std::string_view failure) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::int64_t number = -1;
    std::string operation, group;
    std::int64_t sent_bytes = 0, received_bytes = 0;
    Clock::time_point began;
    std::optional<Clock::time_point> queued, done;
  };

  Entry* find(std::int64_t number);

  const int rank_, size_;
  const Device device_;
  mutable std::mutex mutex_;  // guards what follows
  std::int64_t count_ = 0;
  std::array<Entry, kSize> ring_;
};

}  // namespace serrate
