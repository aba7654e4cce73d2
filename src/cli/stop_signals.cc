#include "src/cli/stop_signals.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <ctime>

namespace serrate::cli {
namespace {

constexpr int kStopSignals[] = {SIGTERM, SIGINT, SIGUSR1, SIGHUP};

// A signal handler reaches nothing but globals.
std::atomic<bool> stop_requested{false};
std::atomic<std::time_t> requested_at{0};  // seconds; 0: not requested
std::atomic<const std::atomic<int>*> passed_on_to{nullptr};
char unfinished_file[PATH_MAX] = "";
static_assert(std::atomic<bool>::is_always_lock_free);
static_assert(std::atomic<std::time_t>::is_always_lock_free);

[[noreturn]] void end_by(int number) {
  std::signal(number, SIG_DFL);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, number);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  std::raise(number);
  // The first process of a container outlives that.
  ::_exit(128 + number);
}

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
    end_by(number);
  }
  errno = error;
}

void remove_unfinished_file(int number) {
  ::unlink(unfinished_file);
  end_by(number);
}

bool is_ignored(int number) {
  struct sigaction present = {};
  sigaction(number, nullptr, &present);
  return present.sa_handler == SIG_IGN;
}

void handle(int number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  sigaction(number, &action, nullptr);
}

void handle_stop_signals() {
  for (const int number : kStopSignals) {
    if (number != SIGHUP || !is_ignored(number)) handle(number, on_stop_signal);
  }
}

}  // namespace

const std::atomic<bool>& stop_on_signals() {
  passed_on_to = nullptr;
  handle_stop_signals();
  return stop_requested;
}

const std::atomic<bool>& pass_on_stop_signals(const std::atomic<int>& child) {
  passed_on_to = &child;
  handle_stop_signals();
  return stop_requested;
}

void remove_on_stop_signals(const std::string& file) {
  if (file.size() >= sizeof unfinished_file) return;  // it cannot be made
  std::strcpy(unfinished_file, file.c_str());
  for (const int number : kStopSignals) {
    if (!is_ignored(number)) handle(number, remove_unfinished_file);
  }
}

}  // namespace serrate::cli
