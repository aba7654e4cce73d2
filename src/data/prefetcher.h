#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace serrate {

/// A thread that calls `producer` ahead of its user and holds at most `depth` results.
template <typename T>
class Prefetcher {
 public:
  /// `producer` returns nullopt at its end; it runs on the thread of the prefetcher alone.
  Prefetcher(std::function<std::optional<T>()> producer, std::size_t depth)
      : producer_(std::move(producer)), depth_(depth), thread_([this] { produce(); }) {}

  /// Waits for a call of the producer that is under way.
  ~Prefetcher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The next result, or nullopt after the last. What the producer throws is thrown here, after
  /// the results before it.
  std::optional<T> next() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !results_.empty() || ended_; });
    if (results_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return std::nullopt;
    }
    std::optional<T> result(std::move(results_.front()));
    results_.pop_front();
    changed_.notify_all();
    return result;
  }

 private:
  void produce() {
    std::exception_ptr error;
    try {
      while (wait_for_room()) {
        std::optional<T> result = producer_();
        if (!result) break;
        const std::lock_guard lock(mutex_);
        results_.push_back(std::move(*result));
        changed_.notify_all();
      }
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    error_ = error;
    ended_ = true;
    changed_.notify_all();
  }

  /// False when the prefetcher is being destroyed.
  bool wait_for_room() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return results_.size() < depth_ || stopping_; });
    return !stopping_;
  }

  std::function<std::optional<T>()> producer_;
  const std::size_t depth_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> results_;
  std::exception_ptr error_;
  bool ended_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last, because it uses the members above
};

}  // namespace serrate
