#include "src/cli/supervise.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "serrate/error.h"
#include "src/cli/stop_signals.h"
#include "src/core/say.h"

namespace serrate::cli {
namespace {

using std::chrono::seconds;

constexpr seconds kFirstPause{1}, kLongestPause{60};
constexpr int kSignalExitCode = 128;  // and the signal's number, as shells have it

Attempt& share_attempt() {
  void* const memory =
      mmap(nullptr, sizeof(Attempt), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw Error(fmt::format("--max-restarts: cannot share memory with a process ({})",
                            std::strerror(errno)));
  }
  return *new (memory) Attempt;  // for as long as the process lives
}

// Signals wait while a child is made: none is lost between it and the note of its number.
pid_t fork_child(std::atomic<int>& child) {
  const pid_t parent = getpid();
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  std::fflush(nullptr);  // or both would write what is buffered
  const pid_t made = fork();
  const int error = errno;
  if (made > 0) child = made;
  if (made == 0) {
    stop_on_signals();
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // an orderly end if the supervisor is lost
    if (getppid() != parent) std::raise(SIGTERM);
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (made < 0) {
    throw Error(fmt::format("--max-restarts: cannot start a process ({})", std::strerror(error)),
                ErrorKind::kRetryable);
  }
  return made;
}

/// Its number is forgotten before it is free for another process, which no signal may reach.
int wait_for(std::atomic<int>& child) {
  const pid_t process = child;
  siginfo_t info = {};
  while (waitid(P_PID, static_cast<id_t>(process), &info, WEXITED | WNOWAIT) < 0) {
    if (errno == EINTR) continue;
    throw Error(fmt::format("--max-restarts: cannot wait for process {} ({})", process,
                            std::strerror(errno)));
  }
  child = 0;
  int status = 0;
  while (waitpid(process, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

std::string how_it_ended(int status) {
  if (!WIFSIGNALED(status)) return fmt::format("exit code {}", WEXITSTATUS(status));
  return fmt::format("signal {}, {}", WTERMSIG(status), strsignal(WTERMSIG(status)));
}

}  // namespace

int supervise(int max_restarts, const std::function<int(Attempt&)>& work) {
  Attempt& attempt = share_attempt();
  std::signal(SIGCHLD, SIG_DFL);  // where it is ignored, nobody is told how a child ended
  std::atomic<int> child{0};
  const std::atomic<bool>& stop = pass_on_stop_signals(child);
  const int retryable = Error("", ErrorKind::kRetryable).exit_code();
  seconds pause = kFirstPause;
  for (int restarts = 0;; ++restarts) {
    const pid_t process = fork_child(child);
    if (process == 0) return work(attempt);
    if (stop) kill(process, SIGTERM);  // what came before there was a child
    const int status = wait_for(child);
    const int exit_code =
        WIFSIGNALED(status) ? kSignalExitCode + WTERMSIG(status) : WEXITSTATUS(status);
    const bool is_retryable = WIFSIGNALED(status) || exit_code == retryable;
    if (!is_retryable || stop || attempt.was_stopped) return exit_code;
    if (restarts == max_restarts) {
      say(fmt::format("ended ({}) and restarted {} times: not again", how_it_ended(status),
                      restarts));
      return exit_code;
    }
    say(fmt::format("ended ({}): restart {} of {} in {} s", how_it_ended(status), restarts + 1,
                    max_restarts, pause.count()));
    const auto until = std::chrono::steady_clock::now() + pause;
    while (!stop && std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    if (stop) return retryable;
    pause = std::min(2 * pause, kLongestPause);
  }
}

}  // namespace serrate::cli
