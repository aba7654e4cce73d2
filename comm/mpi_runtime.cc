#include <mpi.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>

#include "comm/mpi_check.h"
#include "serrate/mpi_communicator.h"

namespace serrate {
namespace {

constexpr unsigned kAbortSeconds = 1;

volatile sig_atomic_t alarm_exit_code = 0;

/// MPI_Abort and MPI_Finalize can block for ever when a peer is stopped. The death of a rank that
/// has not finalized always ends the job.
void exit_after(unsigned seconds, int exit_code) noexcept {
  alarm_exit_code = exit_code;
  struct sigaction action = {};
  action.sa_handler = [](int) { _exit(alarm_exit_code); };
  sigaction(SIGALRM, &action, nullptr);
  sigset_t alarm_only;
  sigemptyset(&alarm_only);
  sigaddset(&alarm_only, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &alarm_only, nullptr);
  alarm(seconds);
}

}  // namespace

bool launched_by_mpirun() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name)) return true;
  }
  return false;
}

MpiRuntime::MpiRuntime(std::chrono::seconds finalize_deadline)
    : finalize_seconds_(static_cast<unsigned>(finalize_deadline.count())) {
  int provided = MPI_THREAD_SINGLE;
  mpi_check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided));
  check(provided >= MPI_THREAD_SERIALIZED, "MPI has to allow calls from any thread");
}

MpiRuntime::~MpiRuntime() {
  exit_after(finalize_seconds_, Error("", ErrorKind::kRetryable).exit_code());
  MPI_Finalize();
  alarm(0);
}

void abort_job(int exit_code) noexcept {
  exit_after(kAbortSeconds, exit_code);
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

}  // namespace serrate
