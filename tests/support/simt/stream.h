#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/support/simt/findings.h"

namespace simt {

/// Which operations are surely over: those of a stream up to a number in it.
class Clock {
 public:
  bool covers(std::uint32_t stream, std::uint32_t number) const {
    const auto found = upto_.find(stream);
    return found != upto_.end() && found->second >= number;
  }
  void set(std::uint32_t stream, std::uint32_t number) { upto_[stream] = number; }
  void join(const Clock& other) {
    for (const auto& [stream, number] : other.upto_) {
      auto& mine = upto_[stream];
      mine = std::max(mine, number);
    }
  }
  void forget(std::uint32_t stream) { upto_.erase(stream); }

 private:
  std::map<std::uint32_t, std::uint32_t> upto_;
};

/// Something that waits in a stream: a kernel, a copy, an allocation, an event.
struct Operation {
  std::uint32_t id = 0;  // from 1, over all streams
  std::uint32_t stream = 0;
  std::uint32_t number = 0;  // in its stream
  int device = 0;            // of its stream
  Clock before;              // itself too
  std::string name;
  std::function<void(const Operation&)> run;
  std::function<bool()> ready;  // or empty
  // For an operation that other host threads have to make ready: ends its wait, when they don't.
  // False when another one has to be given up.
  std::function<bool()> give_up;
};

/// Whether an operation is over, for sure, before another begins: whatever the device does.
bool ordered(std::uint32_t earlier, const Operation& later);
/// Its name, for messages.
std::string operation_name(std::uint32_t id);

/// One at a time uses the runtime. It is held while a kernel runs.
std::recursive_mutex& runtime_mutex();
struct Lock {
  std::lock_guard<std::recursive_mutex> guard{runtime_mutex()};
};

/// SERRATE_SIMT_SEED, for what is open but the same at each call.
std::uint64_t schedule_seed();
/// What is open is drawn from this (SplitMix64: Steele, Lea and Flood 2014).
class SplitMix64 {
 public:
  using result_type = std::uint64_t;
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
  result_type operator()() {
    result_type z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }

 private:
  std::uint64_t state_;
};
inline SplitMix64& schedule() {  // with that seed
  static SplitMix64 random(schedule_seed());
  return random;
}

using StreamId = std::uint32_t;  // 1 is the default stream; ids are not used again
constexpr StreamId kDefaultStream = 1;

/// On the thread's current device.
StreamId create_stream(bool blocking);
/// That of the default stream is the thread's current one.
int device_of(StreamId stream);
/// False when there is no such stream. Its work goes on.
bool destroy_stream(StreamId stream);
bool stream_exists(StreamId stream);
std::size_t live_streams();

/// Queues work; nothing runs until the host waits for it. Returns the operation's id.
std::uint32_t enqueue(StreamId stream, std::string name, std::function<void(const Operation&)> run);
/// An operation that waits for those of other ranks in its stream.
std::uint32_t enqueue_waiting(StreamId stream, std::string name,
                              std::function<void(const Operation&)> run,
                              std::function<bool()> ready, std::function<bool()> give_up);
/// The next operation of a stream, or null.
const Operation* front_operation(StreamId stream);
bool stream_is_idle(StreamId stream);
/// Runs what is queued before, and in seeded random order more.
void synchronize(StreamId stream);
void synchronize_all();
/// Runs one queued operation, if any can run: for hosts that poll.
void make_progress();
/// Runs operations until done(). What waits for other host threads is given up when nothing has
/// moved for patience().
void run_until(const std::function<bool()>& done);
/// Lets other host threads at the runtime, which this one holds.
void let_others_in();
/// How long the host waits for other host threads before it calls that a deadlock.
std::chrono::milliseconds patience();
void set_patience(std::chrono::milliseconds time);
/// Grows with everything that is queued or run.
std::uint64_t movements();

struct Event {
  bool recorded = false;
  std::shared_ptr<bool> done = std::make_shared<bool>(true);
  Clock clock;
  StreamId stream = 0;
  int device = 0;  // that it was made on
};
void record_event(Event& event, StreamId stream);
void wait_for_event(StreamId stream, const Event& event);
void synchronize_event(const Event& event);

/// What the host knows to be over, for copies that return when they are done.
bool host_knows(std::uint32_t operation);
/// Called when the host learns that an operation is over.
void when_known(std::uint32_t operation, std::function<void()> action);

std::uint64_t host_synchronizations();
void count_host_synchronization();
/// From memory of the device.
std::uint64_t copies_to_host();
void count_copy_to_host();

/// The runtime's sticky error, that a failed kernel leaves behind.
int sticky_error();
void set_sticky_error(int error);
void clear_sticky_error();

}  // namespace simt
