// The part of libgomp that our loops call, on POSIX threads, for builds with ThreadSanitizer: it
// sees pthread_create, pthread_join and pthread_barrier_wait, but none of what libgomp does with
// futexes. This file is compiled without the sanitizer, so that handing out iterations orders
// nothing: OpenMP does not promise that it does. A function of libgomp that is missing here is a
// link error.
#include <omp.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace {

// A loop with a dynamic schedule, or a single: the n-th that each thread of a team meets.
struct WorkShare {
  unsigned long long taken = 0;  // iterations that were handed out; of a single, whether it was
  WorkShare* next = nullptr;
};

struct Team {
  void (*body)(void*);
  void* data;
  unsigned size;
  pthread_barrier_t barrier;
  WorkShare first;  // never used itself: the list begins behind it
};

struct Member {
  Team* team = nullptr;  // null outside of a parallel region
  unsigned number = 0;
  WorkShare* share = nullptr;                                  // the latest that this thread met
  unsigned long long begin = 0, end = 0, step = 0, chunk = 0;  // of the loop it is in
  bool is_upward = true;
};

thread_local Member self;

[[noreturn]] void fail(const char* problem) {
  std::fprintf(stderr, "tests/support/openmp_threads.cc: %s\n", problem);
  std::abort();
}

WorkShare* next_share() {
  if (self.team == nullptr) fail("a worksharing construct outside of a parallel region");
  WorkShare* next = __atomic_load_n(&self.share->next, __ATOMIC_ACQUIRE);
  if (next == nullptr) {
    auto* made = new WorkShare;
    if (__atomic_compare_exchange_n(&self.share->next, &next, made, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
      next = made;
    } else {
      delete made;
    }
  }
  return self.share = next;
}

// The next chunk [*begin, *end) of `self`'s loop. Unsigned arithmetic serves signed loops too.
bool next_chunk(unsigned long long* begin, unsigned long long* end) {
  const unsigned long long distance =
      self.is_upward ? self.end - self.begin : self.begin - self.end;
  const unsigned long long stride = self.is_upward ? self.step : -self.step;
  const unsigned long long count = distance / stride + (distance % stride != 0);
  unsigned long long taken = __atomic_load_n(&self.share->taken, __ATOMIC_RELAXED), size;
  do {
    if (taken >= count) return false;
    size = self.chunk < count - taken ? self.chunk : count - taken;
  } while (!__atomic_compare_exchange_n(&self.share->taken, &taken, taken + size, false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  *begin = self.begin + taken * self.step;
  *end = taken + size == count ? self.end : *begin + size * self.step;
  return true;
}

void run_member(Team* team, unsigned number) {
  const Member outer = self;
  self = {.team = team, .number = number, .share = &team->first};
  team->body(team->data);
  self = outer;
}

struct Start {
  Team* team;
  unsigned number;
};

void* run_thread(void* start) {
  const auto* of_thread = static_cast<const Start*>(start);
  run_member(of_thread->team, of_thread->number);
  return nullptr;
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier): libgomp's names
extern "C" {

int omp_get_thread_num() {
  return static_cast<int>(self.number);
}
int omp_get_num_threads() {
  return self.team == nullptr ? 1 : static_cast<int>(self.team->size);
}

void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned /*flags*/) {
  if (num_threads == 0) num_threads = static_cast<unsigned>(sysconf(_SC_NPROCESSORS_ONLN));
  if (self.team != nullptr) num_threads = 1;  // as libgomp's by default: nested regions are serial
  Team team{.body = body, .data = data, .size = num_threads, .barrier = {}, .first = {}};
  pthread_barrier_init(&team.barrier, nullptr, num_threads);
  auto* threads = new pthread_t[num_threads];
  auto* starts = new Start[num_threads];
  for (unsigned number = 1; number < num_threads; ++number) {
    starts[number] = {&team, number};
    if (pthread_create(&threads[number], nullptr, run_thread, &starts[number]) != 0) {
      fail("pthread_create failed");
    }
  }
  run_member(&team, 0);
  for (unsigned number = 1; number < num_threads; ++number) pthread_join(threads[number], nullptr);
  delete[] threads;
  delete[] starts;
  for (WorkShare* share = team.first.next; share != nullptr;) {
    WorkShare* next = share->next;
    delete share;
    share = next;
  }
  pthread_barrier_destroy(&team.barrier);
}

void GOMP_barrier() {
  if (self.team != nullptr) pthread_barrier_wait(&self.team->barrier);
}

bool GOMP_single_start() {
  return __atomic_exchange_n(&next_share()->taken, 1, __ATOMIC_RELAXED) == 0;
}

bool GOMP_loop_ull_nonmonotonic_dynamic_next(unsigned long long* begin, unsigned long long* end) {
  return next_chunk(begin, end);
}

bool GOMP_loop_ull_nonmonotonic_dynamic_start(bool is_upward, unsigned long long begin,
                                              unsigned long long end, unsigned long long step,
                                              unsigned long long chunk,
                                              unsigned long long* chunk_begin,
                                              unsigned long long* chunk_end) {
  next_share();
  const bool is_empty = is_upward ? begin >= end : begin <= end;
  self.begin = begin;
  self.end = is_empty ? begin : end;
  self.step = step;
  self.chunk = chunk;
  self.is_upward = is_upward;
  return next_chunk(chunk_begin, chunk_end);
}

bool GOMP_loop_nonmonotonic_dynamic_next(long* begin, long* end) {
  return next_chunk(reinterpret_cast<unsigned long long*>(begin),
                    reinterpret_cast<unsigned long long*>(end));
}

bool GOMP_loop_nonmonotonic_dynamic_start(long begin, long end, long step, long chunk,
                                          long* chunk_begin, long* chunk_end) {
  next_share();
  const bool is_empty = step > 0 ? begin >= end : begin <= end;
  self.begin = static_cast<unsigned long long>(begin);
  self.end = static_cast<unsigned long long>(is_empty ? begin : end);
  self.step = static_cast<unsigned long long>(step);
  self.chunk = static_cast<unsigned long long>(chunk);
  self.is_upward = step > 0;
  return GOMP_loop_nonmonotonic_dynamic_next(chunk_begin, chunk_end);
}

void GOMP_loop_end() {
  GOMP_barrier();
}
void GOMP_loop_end_nowait() {}

}  // extern "C"
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)
