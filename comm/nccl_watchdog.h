#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "comm/flight_recorder.h"
#include "comm/nccl_handle.h"
#include "serrate/event.h"
#include "serrate/nccl_communicator.h"

namespace serrate {

/// Looks after what a rank has under way on its GPU: NCCL waits for a lost peer for ever, and so
/// does who waits for the stream. One for all communicators of the rank.
class NcclWatchdog {
 public:
  using Clock = NcclHandle::Clock;

  struct Operation {
    std::string name;     // rank 1: all_to_all "rows" #3
    std::int64_t number;  // in the flight recorder
    NcclHandle* handle;
    Clock::time_point deadline;         // if the GPU has nothing to end before
    std::chrono::milliseconds allowed;  // from the end of the operation before, if that is later
  };

  NcclWatchdog(int rank, int size, Device device, NcclOptions options);
  ~NcclWatchdog();

  Device device() const { return device_; }
  FlightRecorder& recorder() { return recorder_; }

  /// The handle is used from now on, until it is forgotten: a failure aborts it.
  void remember(NcclHandle& handle);
  void forget(NcclHandle& handle);
  /// The operation is what `stream` was given last.
  void watch(Operation operation, const Stream& stream);
  /// Throws the Error of an operation that failed.
  void check_health() const;
  /// Writes down the last operations, unless that was done before.
  void write_record(std::string_view failure) noexcept;

 private:
  /// So many operations may be over before their events are looked at.
  static constexpr std::size_t kMostEvents = 32;

  struct Watched {
    Operation operation;
    Event ended;
  };

  void run();
  void retire_finished();
  std::optional<Error> find_failure();
  void fail(const Error& error, std::unique_lock<std::mutex>& lock);

  const Device device_;
  const NcclOptions options_;
  FlightRecorder recorder_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<NcclHandle*> handles_;
  std::deque<Watched> watched_;      // in the order in which they began
  Clock::time_point first_since_{};  // when the one before the first of them was seen to have ended
  std::vector<Event> spare_events_;  // to be used again
  std::optional<Error> failure_;
  bool recorded_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace serrate
