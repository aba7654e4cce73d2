// Faults in the system calls that touch files, for tests: LD_PRELOAD=libfault_shim.so serrate ...
//
// A seccomp filter turns every such call of the process into a signal (SIGSYS), whoever makes it:
// the program, libstdc++, HDF5, or glibc inside fputs, which symbols that are merely interposed
// would miss. The handler makes the call itself, or what the rule says instead of it. Linux on
// x86-64 alone; the process must not exec, since the filter outlives the handler.
//
// Calls on files outside FAULT_ROOT pass untouched and are not counted. Environment:
//   FAULT_ROOT   folder (resolved path) whose files are concerned
//   FAULT_ONLY   a part of the path that files must have to be concerned; optional
//   FAULT_STATE  file of sizeof(struct State) bytes, shared by the processes of a job: what was
//                counted, what was done
//   FAULT_RULE   CALLS:K[+|%]:EFFECT, for instance fsync:3:EIO. CALLS: names of kCallNames joined
//                by commas, or any. K counts these calls over all processes of the job from 1; with
//                + every later one is meant, too, with % every K-th. EFFECT: the name of an errno;
//                short (half of a write); kill, kill-parent or kill-all (SIGKILL to this process,
//                to its parent, or to all processes of the job and the parent); stop (SIGSTOP to
//                this process); delay=MILLISECONDS before the call
//   FAULT_LOG    file that a record of every call that changes something is appended to
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum Call {
  kOpen,
  kOpenRead,
  kRead,
  kWrite,
  kFsync,
  kRename,
  kUnlink,
  kMkdir,
  kTruncate,
  kClose,
  kNumCalls
};
static const char* const kCallNames[kNumCalls] = {
    "open", "openread", "read", "write", "fsync", "rename", "unlink", "mkdir", "truncate", "close"};

enum { kMostProcesses = 64, kPathBytes = 1024 };

/// Shared by the processes of a job; tests/faults/harness.py knows the layout.
struct State {
  _Atomic int64_t calls[kNumCalls];
  _Atomic int64_t matched;   // calls that the rule is about
  _Atomic int64_t injected;  // calls that it changed
  _Atomic int64_t lock;
  _Atomic int64_t num_processes;
  _Atomic int64_t processes[kMostProcesses];
  char first[kPathBytes];  // "write PATH": what was changed first
};

/// A record of the log, followed by two paths and the data.
struct Record {
  int64_t call, process, inode, offset, length, flags, path_bytes, other_path_bytes;
};
enum RecordFlags { kCreated = 1, kTruncated = 2, kIsFolder = 4, kExchanged = 8 };

enum Effect { kNone, kError, kShort, kKill, kKillParent, kKillAll, kStop, kDelay };

static struct {
  struct State* state;
  char root[kPathBytes];
  const char* only;
  int log;
  unsigned calls;  // bit mask
  int64_t k;
  int and_later, and_multiples;
  enum Effect effect;
  int64_t argument;
} shim;

// ---- system calls that the filter lets through: those made from here
// -----------------------------

long shim_system_call(long number, long a, long b, long c, long d, long e, long f);
extern const char kAfterSystemCall[];
__asm__(
    ".text\n.globl shim_system_call\n.hidden shim_system_call\n"
    ".globl kAfterSystemCall\n.hidden kAfterSystemCall\n"
    "shim_system_call:\n"
    "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n"
    "  mov %r8, %r10\n  mov %r9, %r8\n  mov 8(%rsp), %r9\n"
    "  syscall\n"
    "kAfterSystemCall:\n  ret\n");
#define CALL(number, ...) CALL_(number, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(n, a, b, c, d, e, f, ...) \
  shim_system_call(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

// ---- paths; no function of libc that may allocate, since this runs in a signal handler
// -----------

static void append(char* to, const char* text) {
  size_t at = strlen(to);
  while (*text && at < kPathBytes - 1) to[at++] = *text++;
  to[at] = '\0';
}

/// The path of an open file; empty when it has none.
static void path_of_descriptor(int descriptor, char* path) {
  char link[32] = "/proc/self/fd/";
  char digits[12];
  int n = 0;
  path[0] = '\0';
  if (descriptor < 0) return;
  do digits[n++] = (char)('0' + descriptor % 10);
  while ((descriptor /= 10) > 0);
  size_t end = strlen(link);
  while (n > 0) link[end++] = digits[--n];
  link[end] = '\0';
  const long length = CALL(SYS_readlink, link, path, kPathBytes - 1);
  path[length > 0 ? length : 0] = '\0';
}

static void absolute_path(int folder, const char* name, char* path) {
  path[0] = '\0';
  if (name[0] != '/') {
    if (folder == AT_FDCWD) {
      if (CALL(SYS_getcwd, path, kPathBytes) <= 0) path[0] = '\0';
    } else {
      path_of_descriptor(folder, path);
    }
    append(path, "/");
  }
  append(path, name);
}

static int concerned(const char* path) {
  const size_t length = strlen(shim.root);
  return strncmp(path, shim.root, length) == 0 && (path[length] == '/' || path[length] == '\0') &&
         (!shim.only || strstr(path, shim.only));
}

// ---- the log: calls in the order of their effects, with the bytes written
// ------------------------

static void lock(void) {
  int64_t free = 0;
  while (!atomic_compare_exchange_weak(&shim.state->lock, &free, 1)) {
    free = 0;
    CALL(SYS_sched_yield, 0);
  }
}

static void unlock(void) {
  atomic_store(&shim.state->lock, 0);
}

static void write_log(struct Record record, const char* path, const char* other,
                      const struct iovec* data, int num_data) {
  record.process = CALL(SYS_getpid, 0);
  record.path_bytes = (int64_t)strlen(path);
  record.other_path_bytes = (int64_t)strlen(other);
  const struct iovec head[3] = {{&record, sizeof record},
                                {(void*)path, (size_t)record.path_bytes},
                                {(void*)other, (size_t)record.other_path_bytes}};
  CALL(SYS_writev, shim.log, head, 3);
  int64_t left = record.length;
  for (int i = 0; i < num_data && left > 0; ++i) {
    const int64_t n = (int64_t)data[i].iov_len < left ? (int64_t)data[i].iov_len : left;
    CALL(SYS_write, shim.log, data[i].iov_base, n);
    left -= n;
  }
}

// NOLINTBEGIN(performance-no-int-to-ptr): the arguments of a system call are words.

// ---- one call
// -------------------------------------------------------------------------------------

/// What a trapped call is, in one form for all its variants.
struct Request {
  enum Call call;
  long number;
  long a[6];
  int descriptor;  // of calls on open files, else -1
  int64_t offset;  // of positioned writes, else -1
  char path[kPathBytes];
  char other[kPathBytes];  // where a rename leads
};

static int is_open_for_writing(int descriptor) {
  const long flags = CALL(SYS_fcntl, descriptor, F_GETFL);
  return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

/// Fills in the request; 0 when the call does not concern us.
static int understand(struct Request* r) {
  const long* a = r->a;
  r->descriptor = -1;
  r->offset = -1;
  r->other[0] = '\0';
  int folder = AT_FDCWD, other_folder = AT_FDCWD;
  const char *name = NULL, *other_name = NULL;
  long flags = 0;
  switch (r->number) {
    case SYS_open:
      r->call = kOpen;
      name = (const char*)a[0];
      flags = a[1];
      break;
    case SYS_creat:
      r->call = kOpen;
      name = (const char*)a[0];
      flags = O_CREAT | O_WRONLY;
      break;
    case SYS_openat:
      r->call = kOpen;
      folder = (int)a[0];
      name = (const char*)a[1];
      flags = a[2];
      break;
    case SYS_read:
    case SYS_readv:
    case SYS_pread64:
    case SYS_preadv:
      r->call = kRead;
      r->descriptor = (int)a[0];
      break;
    case SYS_write:
    case SYS_writev:
      r->call = kWrite;
      r->descriptor = (int)a[0];
      break;
    case SYS_pwrite64:
    case SYS_pwritev:
      r->call = kWrite;
      r->descriptor = (int)a[0];
      r->offset = a[3];
      break;
    case SYS_fsync:
    case SYS_fdatasync:
      r->call = kFsync;
      r->descriptor = (int)a[0];
      break;
    case SYS_rename:
      r->call = kRename;
      name = (const char*)a[0];
      other_name = (const char*)a[1];
      break;
    case SYS_renameat:
    case SYS_renameat2:
      r->call = kRename;
      folder = (int)a[0];
      name = (const char*)a[1];
      other_folder = (int)a[2];
      other_name = (const char*)a[3];
      break;
    case SYS_unlink:
    case SYS_rmdir:
      r->call = kUnlink;
      name = (const char*)a[0];
      break;
    case SYS_unlinkat:
      r->call = kUnlink;
      folder = (int)a[0];
      name = (const char*)a[1];
      break;
    case SYS_mkdir:
      r->call = kMkdir;
      name = (const char*)a[0];
      break;
    case SYS_mkdirat:
      r->call = kMkdir;
      folder = (int)a[0];
      name = (const char*)a[1];
      break;
    case SYS_truncate:
      r->call = kTruncate;
      name = (const char*)a[0];
      r->offset = a[1];
      break;
    case SYS_ftruncate:
      r->call = kTruncate;
      r->descriptor = (int)a[0];
      r->offset = a[1];
      break;
    case SYS_close:
      r->call = kClose;
      r->descriptor = (int)a[0];
      break;
    default:
      return 0;
  }
  if (name) {
    absolute_path(folder, name, r->path);
    if (other_name) absolute_path(other_folder, other_name, r->other);
  } else {
    path_of_descriptor(r->descriptor, r->path);
  }
  if (!concerned(r->path) && !(r->other[0] && concerned(r->other))) return 0;
  if (r->call == kOpen && (flags & O_ACCMODE) == O_RDONLY) r->call = kOpenRead;
  // Nothing is lost when a file that was only read does not close.
  return r->call != kClose || is_open_for_writing(r->descriptor);
}

static long make_call(const struct Request* r) {
  return shim_system_call(r->number, r->a[0], r->a[1], r->a[2], r->a[3], r->a[4], r->a[5]);
}

/// Makes the call and appends what it changed to the log.
static long make_logged_call(const struct Request* r) {
  struct stat before, file;
  memset(&file, 0, sizeof file);
  lock();
  const int existed = CALL(SYS_newfstatat, AT_FDCWD, r->path, &before, AT_SYMLINK_NOFOLLOW) == 0;
  int64_t offset = r->offset;
  if (r->descriptor >= 0) CALL(SYS_fstat, r->descriptor, &file);
  if (r->call == kWrite && offset < 0) {
    const long flags = CALL(SYS_fcntl, r->descriptor, F_GETFL);
    offset = flags & O_APPEND ? file.st_size : CALL(SYS_lseek, r->descriptor, 0, SEEK_CUR);
  }
  const long result = make_call(r);
  if (result >= 0 && r->call != kRead && r->call != kClose && r->call != kOpenRead) {
    struct Record record = {.call = r->call, .offset = offset};
    struct iovec one = {(void*)r->a[1], (size_t)r->a[2]};
    const struct iovec* data = NULL;
    int num_data = 0;
    if (r->call == kWrite) {
      record.length = result;
      const int many = r->number == SYS_writev || r->number == SYS_pwritev;
      data = many ? (const struct iovec*)r->a[1] : &one;
      num_data = many ? (int)r->a[2] : 1;
    } else if (r->call == kOpen) {
      const long flags = r->number == SYS_openat ? r->a[2]
                         : r->number == SYS_open ? r->a[1]
                                                 : O_CREAT | O_TRUNC;
      CALL(SYS_fstat, result, &file);
      record.flags = (existed ? 0 : kCreated) | (flags & O_TRUNC ? kTruncated : 0);
    } else if (r->call == kMkdir) {
      CALL(SYS_newfstatat, AT_FDCWD, r->path, &file, AT_SYMLINK_NOFOLLOW);
    } else if (r->descriptor < 0) {
      file = before;
      if (r->number == SYS_renameat2 && r->a[4] & RENAME_EXCHANGE) record.flags |= kExchanged;
    }
    if (S_ISDIR(file.st_mode)) record.flags |= kIsFolder;
    record.inode = (int64_t)file.st_ino;
    write_log(record, r->path, r->other, data, num_data);
  }
  unlock();
  return result;
}

static void kill_all(void) {
  const int64_t n = atomic_load(&shim.state->num_processes);
  const long self = CALL(SYS_getpid, 0);
  CALL(SYS_kill, CALL(SYS_getppid, 0), SIGKILL);
  for (int64_t i = 0; i < n && i < kMostProcesses; ++i) {
    const int64_t process = atomic_load(&shim.state->processes[i]);
    if (process != self) CALL(SYS_kill, process, SIGKILL);
  }
  CALL(SYS_kill, self, SIGKILL);
}

static long make_half(const struct Request* r) {
  struct Request half = *r;
  struct iovec first;
  if (r->number == SYS_writev || r->number == SYS_pwritev) {
    first = *(const struct iovec*)r->a[1];
    first.iov_len = (first.iov_len + 1) / 2;
    half.a[1] = (long)&first;
    half.a[2] = 1;
  } else {
    half.a[2] = (r->a[2] + 1) / 2;
  }
  return make_call(&half);
}

static long make_faulty_call(const struct Request* r) {
  if (atomic_fetch_add(&shim.state->injected, 1) == 0) {
    char* first = shim.state->first;
    append(first, kCallNames[r->call]);
    append(first, " ");
    append(first, r->path);
  }
  switch (shim.effect) {
    case kError:
      if (r->call == kClose) make_call(r);  // Linux closes the descriptor whatever it returns
      return -shim.argument;
    case kShort:
      return make_half(r);
    case kKill:
      CALL(SYS_kill, CALL(SYS_getpid, 0), SIGKILL);
      break;
    case kKillParent:
      CALL(SYS_kill, CALL(SYS_getppid, 0), SIGKILL);
      break;
    case kKillAll:
      kill_all();
      break;
    case kStop:
      CALL(SYS_kill, CALL(SYS_getpid, 0), SIGSTOP);
      break;
    case kDelay: {
      const struct timespec time = {shim.argument / 1000, shim.argument % 1000 * 1000000};
      CALL(SYS_nanosleep, &time, 0);
      break;
    }
    case kNone:
      break;
  }
  return make_call(r);
}

static void on_trapped_call(int signal, siginfo_t* info, void* context) {
  (void)signal;
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  struct Request r = {.number = info->si_syscall,
                      .a = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                            registers[REG_R10], registers[REG_R8], registers[REG_R9]}};
  long result;
  if (!understand(&r)) {
    result = make_call(&r);
  } else {
    atomic_fetch_add(&shim.state->calls[r.call], 1);
    int hit = 0;
    if (shim.calls & 1u << r.call) {
      const int64_t k = atomic_fetch_add(&shim.state->matched, 1) + 1;
      hit = k == shim.k || (shim.and_later && k > shim.k) ||
            (shim.and_multiples && k % shim.k == 0);
      if (shim.effect == kShort && r.call == kWrite && r.number != SYS_writev && r.a[2] < 2)
        hit = 0;
    }
    result = hit ? make_faulty_call(&r) : shim.log >= 0 ? make_logged_call(&r) : make_call(&r);
  }
  registers[REG_RAX] = result;
}

// NOLINTEND(performance-no-int-to-ptr)

// ---- setting up
// -----------------------------------------------------------------------------------

static void fail(const char* text) {
  const char* const parts[] = {"fault_shim: ", text, "\n"};
  for (int i = 0; i < 3; ++i) CALL(SYS_write, 2, parts[i], strlen(parts[i]));
  _exit(70);
}

static void parse_rule(char* rule) {
  char* k = strchr(rule, ':');
  char* effect = k ? strchr(k + 1, ':') : NULL;
  if (!effect) fail("FAULT_RULE is not CALLS:K:EFFECT");
  *k++ = *effect++ = '\0';
  for (char *rest = NULL, *name = strtok_r(rule, ",", &rest); name;
       name = strtok_r(NULL, ",", &rest)) {
    unsigned bits = strcmp(name, "any") == 0 ? (1u << kNumCalls) - 1 : 0;
    for (int i = 0; i < kNumCalls; ++i) {
      if (strcmp(name, kCallNames[i]) == 0) bits = 1u << i;
    }
    if (!bits) fail("FAULT_RULE names an unknown call");
    shim.calls |= bits;
  }
  char* end = NULL;
  shim.k = strtoll(k, &end, 10);
  shim.and_later = *end == '+';
  shim.and_multiples = *end == '%' && shim.k > 0;
  static const struct {
    const char* name;
    enum Effect effect;
    int argument;
  } effects[] = {
      {"short", kShort, 0},       {"kill", kKill, 0},         {"kill-parent", kKillParent, 0},
      {"kill-all", kKillAll, 0},  {"stop", kStop, 0},         {"ENOSPC", kError, ENOSPC},
      {"EIO", kError, EIO},       {"EINTR", kError, EINTR},   {"EDQUOT", kError, EDQUOT},
      {"EMFILE", kError, EMFILE}, {"EACCES", kError, EACCES}, {"EROFS", kError, EROFS}};
  for (size_t i = 0; i < sizeof effects / sizeof effects[0]; ++i) {
    if (strcmp(effect, effects[i].name) != 0) continue;
    shim.effect = effects[i].effect;
    shim.argument = effects[i].argument;
  }
  if (strncmp(effect, "delay=", 6) == 0) {
    shim.effect = kDelay;
    shim.argument = atoll(effect + 6);
  }
  if (shim.effect == kNone) fail("FAULT_RULE has an unknown effect");
}

static void install_filter(void) {
  static const int numbers[] = {
      SYS_open,      SYS_creat,  SYS_openat,   SYS_read,      SYS_readv,     SYS_pread64,
      SYS_preadv,    SYS_write,  SYS_writev,   SYS_pwrite64,  SYS_pwritev,   SYS_fsync,
      SYS_fdatasync, SYS_rename, SYS_renameat, SYS_renameat2, SYS_unlink,    SYS_rmdir,
      SYS_unlinkat,  SYS_mkdir,  SYS_mkdirat,  SYS_truncate,  SYS_ftruncate, SYS_close};
  enum { kNumNumbers = sizeof numbers / sizeof numbers[0], kHead = 7 };
  const uint64_t allowed = (uint64_t)(uintptr_t)kAfterSystemCall;
  struct sock_filter program[kHead + kNumNumbers + 2] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, kHead + kNumNumbers - 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)allowed, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(allowed >> 32), kHead + kNumNumbers - 6, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  for (int i = 0; i < kNumNumbers; ++i) {
    program[kHead + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                                      (uint32_t)numbers[i], kNumNumbers - i, 0);
  }
  program[kHead + kNumNumbers] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  program[kHead + kNumNumbers + 1] =
      (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
  const struct sock_fprog filter = {kHead + kNumNumbers + 2, program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    fail("the kernel refuses a seccomp filter");
  }
}

__attribute__((constructor)) static void start(void) {
  const char* root = getenv("FAULT_ROOT");
  const char* state = getenv("FAULT_STATE");
  if (!root || !state) return;
  append(shim.root, root);
  shim.only = getenv("FAULT_ONLY");
  const int file = open(state, O_RDWR | O_CLOEXEC);
  shim.state = file < 0
                   ? MAP_FAILED
                   : mmap(NULL, sizeof(struct State), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (shim.state == MAP_FAILED) fail("FAULT_STATE cannot be mapped");
  close(file);
  const int64_t i = atomic_fetch_add(&shim.state->num_processes, 1);
  if (i < kMostProcesses) atomic_store(&shim.state->processes[i], getpid());
  shim.log = -1;
  if (getenv("FAULT_LOG")) {
    shim.log = open(getenv("FAULT_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (shim.log < 0) fail("FAULT_LOG cannot be opened");
  }
  if (getenv("FAULT_RULE")) parse_rule(strdup(getenv("FAULT_RULE")));
  struct sigaction action = {.sa_sigaction = on_trapped_call,
                             .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
  sigaction(SIGSYS, &action, NULL);
  install_filter();
}

// A trapped call of a thread that blocks SIGSYS would end the process.

int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) {
  static int (*real)(int, const sigset_t*, sigset_t*);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "pthread_sigmask");
  sigset_t without;
  if (set) {
    without = *set;
    if (how != SIG_UNBLOCK) sigdelset(&without, SIGSYS);
  }
  return real(how, set ? &without : NULL, old);
}

int sigprocmask(int how, const sigset_t* set, sigset_t* old) {
  const int error = pthread_sigmask(how, set, old);
  if (error) errno = error;
  return error ? -1 : 0;
}

int sigaction(int signal, const struct sigaction* action, struct sigaction* old) {
  static int (*real)(int, const struct sigaction*, struct sigaction*);
  if (!real) *(void**)&real = dlsym(RTLD_NEXT, "sigaction");
  struct sigaction without;
  if (action) {
    without = *action;
    sigdelset(&without.sa_mask, SIGSYS);
  }
  return real(signal, action ? &without : NULL, old);
}
