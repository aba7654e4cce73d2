#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "serrate/communicator.h"

namespace serrate {

/// A thread for one piece of work at a time, whose failure is kept. Signals go to other threads.
class Worker {
 public:
  ~Worker() { join(); }

  /// After the work before.
  void start(std::function<void()> work);
  /// Instead of work that cannot be started.
  void fail(std::string why);

  bool finished() const { return finished_; }
  void wait_for(std::chrono::milliseconds time);
  /// What went wrong, or nothing; waits for the work.
  const std::string& failure();

 private:
  void run(const std::function<void()>& work);
  void join();

  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::atomic<bool> finished_{true};
  std::string failure_;
};

/// Ranks that wait for each other's files ask again this often: a slow disk is no lost peer.
inline constexpr std::chrono::milliseconds kBetweenQuestions{50};

/// Waits until the workers of all ranks have finished, however long that takes. Collective.
void wait_for_all(Worker& worker, Communicator& communicator);

}  // namespace serrate
