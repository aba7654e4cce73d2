#include "src/checkpoint/worker.h"

#include <fmt/format.h>
#include <signal.h>

#include <exception>
#include <new>

namespace serrate {

void Worker::start(std::function<void()> work) {
  join();
  finished_ = false;
  failure_.clear();
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this, work = std::move(work)] { run(work); });
  } catch (const std::exception& error) {
    fail(fmt::format("no thread can be started ({})", error.what()));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Worker::fail(std::string why) {
  join();
  failure_ = std::move(why);
  finished_ = true;
}

void Worker::wait_for(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  ended_.wait_for(lock, time, [this] { return finished_.load(); });
}

const std::string& Worker::failure() {
  join();
  return failure_;
}

void Worker::run(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    failure_ = "memory ran out";
  } catch (const std::exception& error) {
    failure_ = error.what();
  }
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  ended_.notify_all();
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void wait_for_all(Worker& worker, Communicator& communicator) {
  std::int64_t unfinished = 0;
  do {
    worker.wait_for(kBetweenQuestions);
    unfinished = worker.finished() ? 0 : 1;
    communicator.sum<std::int64_t>("wait for files", {&unfinished, 1});
  } while (unfinished > 0);
}

}  // namespace serrate
