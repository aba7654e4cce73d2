#include "tests/support/simt/stream.h"

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "tests/support/simt/device.h"
#include "tests/support/simt/library.h"

namespace simt {
namespace {

struct Stream {
  bool blocking = false, destroyed = false;
  int device = 0;
  std::uint32_t enqueued = 0;  // operations so far
  Clock clock = {};            // of its last operation
  std::deque<Operation> queue = {};
  Clock finished = {};             // of the last operation that ran
  std::thread::id last_user = {};  // that queued something
};

struct Known {
  std::uint32_t stream, number;
  std::string name;
};

struct State {
  std::map<StreamId, Stream> streams{{kDefaultStream, {.blocking = true}}};
  StreamId next_stream = kDefaultStream + 1;
  std::vector<Known> operations{{}};          // by id
  std::map<StreamId, std::uint32_t> retired;  // streams that are gone -> operations made by then
  Clock host;
  std::vector<std::pair<std::uint32_t, std::function<void()>>> actions;
  std::uint64_t host_synchronizations = 0, copies_to_host = 0;
  int sticky_error = 0;
  std::uint64_t movements = 0;
  std::chrono::milliseconds patience{20000};
};

State& state() {
  static State instance;
  return instance;
}

// A stream that is destroyed and done, as the host knows, is before all that comes.
void retire_streams() {
  State& s = state();
  for (auto it = s.streams.begin(); it != s.streams.end();) {
    if (it->second.destroyed && it->second.queue.empty() &&
        (it->second.enqueued == 0 || s.host.covers(it->first, it->second.enqueued))) {
      s.retired[it->first] = static_cast<std::uint32_t>(s.operations.size());
      s.host.forget(it->first);
      for (auto& [id, other] : s.streams) other.clock.forget(it->first);
      it = s.streams.erase(it);
    } else {
      ++it;
    }
  }
}

void host_learns(const Clock& clock) {
  State& s = state();
  s.host.join(clock);
  auto actions = std::exchange(s.actions, {});
  for (auto& [operation, action] : actions) {
    if (host_knows(operation)) {
      action();
    } else {
      s.actions.emplace_back(operation, std::move(action));
    }
  }
  retire_streams();
}

bool can_run(const Stream& stream) {
  return !stream.queue.empty() && (!stream.queue.front().ready || stream.queue.front().ready());
}

void run_front(Stream& stream) {
  Operation operation = std::move(stream.queue.front());
  stream.queue.pop_front();
  ++state().movements;
  stream.finished = operation.before;
  operation.run(operation);
}

// Runs an operation of some stream; of `needed`, every second time that it can.
bool run_one(StreamId needed) {
  State& s = state();
  std::vector<StreamId> able;
  for (auto& [id, stream] : s.streams) {
    if (can_run(stream)) able.push_back(id);
  }
  if (able.empty()) return false;
  StreamId chosen = able[schedule()() % able.size()];
  if (std::count(able.begin(), able.end(), needed) && schedule()() % 2) chosen = needed;
  run_front(s.streams.at(chosen));
  return true;
}

// Runs what can run until done(). Where nothing can, an operation may wait for another host thread,
// which gets its turn; after a while without any movement it never will.
template <typename Done>
void run_needed(StreamId needed, const Done& done) {
  auto moved_at = std::chrono::steady_clock::now();
  std::uint64_t seen = state().movements;
  while (!done()) {
    if (run_one(needed)) continue;
    std::vector<std::function<bool()>> waiting;
    for (auto& [id, stream] : state().streams) {
      if (!stream.queue.empty() && stream.queue.front().give_up) {
        waiting.push_back(stream.queue.front().give_up);
      }
    }
    if (waiting.empty()) return;
    const auto now = std::chrono::steady_clock::now();
    if (seen != state().movements) {
      seen = state().movements;
      moved_at = now;
    } else if (now - moved_at > state().patience) {
      if (std::none_of(waiting.begin(), waiting.end(),
                       [](const auto& give_up) { return give_up(); })) {
        return;
      }
      continue;
    }
    let_others_in();
  }
}

}  // namespace

std::recursive_mutex& runtime_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

bool ordered(std::uint32_t earlier, const Operation& later) {
  const State& s = state();
  const Known& known = s.operations[earlier];
  if (later.before.covers(known.stream, known.number)) return true;
  const auto retired = s.retired.find(known.stream);
  return retired != s.retired.end() && retired->second <= later.id;
}

std::string operation_name(std::uint32_t id) {
  const Known& known = state().operations[id];
  return known.name + " (operation " + std::to_string(known.number) + " of stream " +
         std::to_string(known.stream) + ")";
}

StreamId create_stream(bool blocking) {
  State& s = state();
  Stream& stream = s.streams[s.next_stream];
  stream.blocking = blocking;
  stream.device = current_device();
  return s.next_stream++;
}

int device_of(StreamId stream) {
  return stream == kDefaultStream ? current_device() : state().streams.at(stream).device;
}

bool destroy_stream(StreamId stream) {
  if (!stream_exists(stream) || stream == kDefaultStream) return false;
  state().streams.at(stream).destroyed = true;
  retire_streams();
  return true;
}

bool stream_exists(StreamId stream) {
  const auto found = state().streams.find(stream);
  return found != state().streams.end() && !found->second.destroyed;
}

std::size_t live_streams() {
  return static_cast<std::size_t>(
      std::count_if(state().streams.begin(), state().streams.end(),
                    [](const auto& entry) { return !entry.second.destroyed; }));
}

std::uint32_t enqueue(StreamId id, std::string name, std::function<void(const Operation&)> run) {
  State& s = state();
  Stream& stream = s.streams.at(id);
  stream.clock.join(s.host);
  std::vector<std::shared_ptr<bool>> needed;
  // The default stream waits for all blocking streams, and they for it.
  if (stream.blocking) {
    for (auto& [other_id, other] : s.streams) {
      if (other_id == id || !other.blocking) continue;
      if (id != kDefaultStream && other_id != kDefaultStream) continue;
      stream.clock.join(other.clock);
      if (!other.queue.empty()) {
        auto done = std::make_shared<bool>(false);
        auto last = std::move(other.queue.back().run);
        other.queue.back().run = [last, done](const Operation& operation) {
          last(operation);
          *done = true;
        };
        needed.push_back(done);
      }
    }
  }
  Operation operation;
  operation.id = static_cast<std::uint32_t>(s.operations.size());
  operation.stream = id;
  operation.number = ++stream.enqueued;
  operation.device = device_of(id);
  stream.last_user = std::this_thread::get_id();
  ++s.movements;
  stream.clock.set(id, operation.number);
  operation.before = stream.clock;
  operation.name = name;
  operation.run = std::move(run);
  if (!needed.empty()) {
    operation.ready = [needed] {
      return std::all_of(needed.begin(), needed.end(), [](const auto& done) { return *done; });
    };
  }
  s.operations.push_back({id, operation.number, std::move(name)});
  stream.queue.push_back(std::move(operation));
  return stream.queue.back().id;
}

std::uint32_t enqueue_waiting(StreamId id, std::string name,
                              std::function<void(const Operation&)> run,
                              std::function<bool()> ready, std::function<bool()> give_up) {
  enqueue(id, std::move(name), std::move(run));
  Operation& operation = state().streams.at(id).queue.back();
  operation.give_up = std::move(give_up);
  operation.ready = [also = std::move(operation.ready), ready = std::move(ready)] {
    return (!also || also()) && ready();
  };
  return operation.id;
}

const Operation* front_operation(StreamId id) {
  const auto found = state().streams.find(id);
  if (found == state().streams.end() || found->second.queue.empty()) return nullptr;
  return &found->second.queue.front();
}

bool stream_is_idle(StreamId stream) {
  const auto found = state().streams.find(stream);
  return found == state().streams.end() || found->second.queue.empty();
}

void synchronize(StreamId stream) {
  run_needed(stream, [&] { return stream_is_idle(stream); });
  host_learns(state().streams.at(stream).clock);
}

// Host threads stand for ranks, which have a device of their own each: the streams that another
// thread queued to last may still wait for what this one is going to queue.
void synchronize_all() {
  const std::thread::id me = std::this_thread::get_id();
  run_needed(0, [&] {
    return std::all_of(state().streams.begin(), state().streams.end(), [&](const auto& entry) {
      return entry.second.queue.empty() || (entry.second.last_user != me && !can_run(entry.second));
    });
  });
  Clock all;
  for (auto& [id, stream] : state().streams) {
    all.join(stream.queue.empty() ? stream.clock : stream.finished);
  }
  host_learns(all);
}

void run_until(const std::function<bool()>& done) {
  run_needed(0, done);
}

void let_others_in() {
  runtime_mutex().unlock();
  std::this_thread::sleep_for(std::chrono::microseconds(200));
  runtime_mutex().lock();
}

std::chrono::milliseconds patience() {
  return state().patience;
}

void set_patience(std::chrono::milliseconds time) {
  state().patience = time;
}

std::uint64_t movements() {
  return state().movements;
}

void make_progress() {
  run_one(0);
}

void record_event(Event& event, StreamId stream) {
  event.recorded = true;
  event.done = std::make_shared<bool>(false);
  event.stream = stream;
  enqueue(stream, "event", [done = event.done](const Operation&) { *done = true; });
  event.clock = state().streams.at(stream).clock;
}

void wait_for_event(StreamId id, const Event& event) {
  if (!event.recorded) return;
  state().streams.at(id).clock.join(event.clock);
  enqueue(id, "wait for an event", [](const Operation&) {});
  state().streams.at(id).queue.back().ready = [done = event.done] { return *done; };
}

void synchronize_event(const Event& event) {
  if (!event.recorded) return;
  run_needed(event.stream, [&] { return *event.done; });
  host_learns(event.clock);
}

bool host_knows(std::uint32_t operation) {
  const State& s = state();
  const Known& known = s.operations[operation];
  return s.host.covers(known.stream, known.number) || s.retired.count(known.stream);
}

void when_known(std::uint32_t operation, std::function<void()> action) {
  state().actions.emplace_back(operation, std::move(action));
}

std::uint64_t copies_to_host() {
  return state().copies_to_host;
}

void count_copy_to_host() {
  ++state().copies_to_host;
}

std::uint64_t host_synchronizations() {
  return state().host_synchronizations;
}

void count_host_synchronization() {
  ++state().host_synchronizations;
}

int sticky_error() {
  return state().sticky_error;
}

void set_sticky_error(int error) {
  state().sticky_error = error;
}

void clear_sticky_error() {
  const std::lock_guard lock(runtime_mutex());
  state().sticky_error = 0;
}

}  // namespace simt
