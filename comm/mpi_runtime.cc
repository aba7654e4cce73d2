#include <fmt/format.h>
#include <mpi.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <string>

#include "comm/launcher.h"
#include "comm/mpi_check.h"
#include "serrate/mpi_communicator.h"

namespace serrate {
namespace {

constexpr std::chrono::seconds kAbortDeadline(1);

volatile sig_atomic_t alarm_exit_code = 0;
std::string alarm_message;  // what to say then; not changed while the alarm is set

/// MPI_Init, MPI_Abort and MPI_Finalize can block for ever when a peer is stopped or never came.
/// The death of a rank that has not finalized always ends the job.
void exit_after(std::chrono::milliseconds time, int exit_code) noexcept {
  alarm_exit_code = exit_code;
  struct sigaction action = {};
  action.sa_handler = [](int) {
    [[maybe_unused]] const auto written =
        ::write(STDERR_FILENO, alarm_message.data(), alarm_message.size());
    _exit(alarm_exit_code);
  };
  sigaction(SIGALRM, &action, nullptr);
  sigset_t alarm_only;
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &alarm_only, nullptr);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(time).count();
  itimerval timer = {};
  timer.it_value = {micros / 1'000'000, micros % 1'000'000};
  setitimer(ITIMER_REAL, &timer, nullptr);
}

void cancel_exit() noexcept {
  const itimerval none = {};
  setitimer(ITIMER_REAL, &none, nullptr);
  alarm_message.clear();
}

int retryable() {
  return Error("", ErrorKind::kRetryable).exit_code();
}

}  // namespace

bool launched_by_mpirun() {
  return launched_rank().has_value();
}

MpiRuntime::MpiRuntime(std::chrono::milliseconds start_deadline,
                       std::chrono::seconds finalize_deadline)
    : finalize_deadline_(finalize_deadline) {
  const int rank = launched_rank().value_or(0);
  alarm_message = fmt::format(
      "serrate: rank {}: MPI_Init: waited {} ms for the other ranks (one was lost, or is a program "
      "that does not call MPI_Init): restart the job, with a longer timeout if one was only slow\n",
      rank, start_deadline.count());
  // All wait for the same: that rank 0 says so is enough.
  exit_after(start_deadline + std::chrono::seconds(rank > 0 ? 1 : 0), retryable());
  int provided = MPI_THREAD_SINGLE;
  mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided));
  cancel_exit();
  check(provided >= MPI_THREAD_SERIALIZED, "MPI has to allow calls from any thread");
}

MpiRuntime::~MpiRuntime() {
  exit_after(finalize_deadline_, retryable());
  MPI_Finalize();
  cancel_exit();
}

void abort_job(int exit_code) noexcept {
  exit_after(kAbortDeadline, exit_code);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

}  // namespace serrate
