#include "comm/nccl_watchdog.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "src/core/say.h"

namespace serrate {
namespace {

using namespace std::chrono_literals;

/// How often the device is asked: often enough to be on time, seldom enough to cost nothing.
std::chrono::milliseconds pause(std::chrono::milliseconds allowed) {
  return std::clamp<std::chrono::milliseconds>(allowed / 16, 10ms, 1000ms);
}

}  // namespace

NcclWatchdog::NcclWatchdog(int rank, int size, Device device, NcclOptions options)
    : device_(device),
      options_(std::move(options)),
      recorder_(rank, size, device),
      thread_([this] { run(); }) {}

NcclWatchdog::~NcclWatchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void NcclWatchdog::remember(NcclHandle& handle) {
  const std::lock_guard lock(mutex_);
  handles_.push_back(&handle);
}

void NcclWatchdog::forget(NcclHandle& handle) {
  const std::lock_guard lock(mutex_);
  std::erase(handles_, &handle);
  std::erase_if(watched_, [&](const Watched& w) { return w.operation.handle == &handle; });
}

void NcclWatchdog::watch(Operation operation, const Stream& stream) {
  const std::lock_guard lock(mutex_);
  if (watched_.size() >= kMostEvents) retire_finished();
  Event ended(Device::cpu());
  if (spare_events_.empty()) {
    ended = Event(device_);
  } else {
    ended = std::move(spare_events_.back());
    spare_events_.pop_back();
  }
  ended.record(stream);
  watched_.push_back({std::move(operation), std::move(ended)});
  if (watched_.size() == 1) changed_.notify_all();
}

void NcclWatchdog::check_health() const {
  const std::lock_guard lock(mutex_);
  if (failure_) throw *failure_;
}

/// Under the mutex, as are the next two.
void NcclWatchdog::retire_finished() {
  for (auto w = watched_.begin(); w != watched_.end();) {
    if (!w->ended.is_reached()) {
      ++w;
      continue;
    }
    recorder_.done(w->operation.number);
    if (w == watched_.begin()) first_since_ = Clock::now();
    spare_events_.push_back(std::move(w->ended));
    w = watched_.erase(w);
  }
}

/// Operations of two steps may be queued, one behind the other: the first one's time alone runs.
std::optional<Error> NcclWatchdog::find_failure() try {
  retire_finished();
  for (const auto& [operation, ended] : watched_) {
    const ncclResult_t result = operation.handle->async_error();
    if (result != ncclSuccess && result != ncclInProgress) {
      return Error(fmt::format("{}: {} (another rank was lost, or the network): restart the job",
                               operation.name, nccl_message(result)),
                   ErrorKind::kRetryable);
    }
  }
  if (watched_.empty()) return std::nullopt;
  const Operation& first = watched_.front().operation;
  if (Clock::now() < std::max(first.deadline, first_since_ + first.allowed)) return std::nullopt;
  return Error(fmt::format("{}: the GPU did not end it within {} ms (another rank was stopped or "
                           "lost after it had agreed to the exchange, or a GPU hangs): restart the "
                           "job, with a longer timeout if the GPUs were only busy",
                           first.name, first.allowed.count()),
               ErrorKind::kRetryable);
} catch (const Error& error) {  // of the device
  return Error(fmt::format("{}: {}", watched_.front().operation.name, error.what()));
}

void NcclWatchdog::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (watched_.empty() || failure_) {
      changed_.wait(lock);
      continue;
    }
    changed_.wait_for(lock, pause(watched_.front().operation.allowed), [&] { return stopping_; });
    if (stopping_ || watched_.empty()) continue;
    if (const std::optional<Error> failure = find_failure()) fail(*failure, lock);
  }
}

void NcclWatchdog::fail(const Error& error, std::unique_lock<std::mutex>& lock) {
  failure_ = error;
  lock.unlock();
  write_record(error.what());
  if (!options_.on_failure) {
    // The one way to end what NCCL has under way that always works; mpirun then ends the job.
    say(error.what());
    std::_Exit(error.exit_code());
  }
  lock.lock();
  for (NcclHandle* const handle : handles_) handle->abort();
  lock.unlock();
  options_.on_failure(error);
  lock.lock();
}

void NcclWatchdog::write_record(std::string_view failure) noexcept try {
  if (options_.recorder_folder.empty()) return;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(recorded_, true)) return;
  }
  const auto path =
      options_.recorder_folder / fmt::format("flight_recorder.rank{}.json", recorder_.rank());
  std::ofstream out(path);
  out << recorder_.to_json(failure);
  if (!out.flush()) say(fmt::format("{} could not be written", path.string()));
} catch (const std::exception& error) {
  say(fmt::format("the flight recorder could not be written: {}", error.what()));
}

}  // namespace serrate
