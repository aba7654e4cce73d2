#include "src/cli/stop_signals.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>

namespace serrate::cli {
namespace {

constexpr int kStopSignals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};

// A signal handler reaches nothing but globals.
std::atomic<bool> stop_requested{false};
std::atomic<std::time_t> requested_at{0};  // seconds; 0: not requested
std::atomic<const std::atomic<int>*> passed_on_to{nullptr};
std::atomic<const char*> unfinished_file{nullptr};
static_assert(std::atomic<bool>::is_always_lock_free);
static_assert(std::atomic<std::time_t>::is_always_lock_free);

void on_stop_signal(int number) {
  const int error = errno;  // of what is interrupted
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  // A child that is made later has the time, too: what is passed on to it is the same request.
  std::time_t none = 0;
  const bool is_first = requested_at.compare_exchange_strong(none, now.tv_sec);
  stop_requested = true;
  if (const std::atomic<int>* child = passed_on_to) {
    if (const int process = *child) ::kill(process, number);
  } else if (!is_first && now.tv_sec > requested_at + 1) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
  errno = error;
}

void remove_unfinished_file(int number) {
  ::unlink(unfinished_file);
  std::signal(number, SIG_DFL);
  std::raise(number);
}

void handle_stop_signals(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  for (const int number : kStopSignals) {
    struct sigaction present = {};
    sigaction(number, nullptr, &present);
    if (number == SIGHUP && present.sa_handler == SIG_IGN) continue;
    sigaction(number, &action, nullptr);
  }
}

}  // namespace

const std::atomic<bool>& stop_on_signals() {
  passed_on_to = nullptr;
  handle_stop_signals(on_stop_signal);
  return stop_requested;
}

const std::atomic<bool>& pass_on_stop_signals(const std::atomic<int>& child) {
  passed_on_to = &child;
  handle_stop_signals(on_stop_signal);
  return stop_requested;
}

void remove_on_stop_signals(const std::string& file) {
  unfinished_file = file.c_str();
  handle_stop_signals(remove_unfinished_file);
}

}  // namespace serrate::cli
