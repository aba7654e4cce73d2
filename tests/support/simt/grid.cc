#include "tests/support/simt/grid.h"

#include <sys/mman.h>

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <cstring>
#include <numeric>

#include "tests/support/simt/block.h"
#include "tests/support/simt/counters.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/sectors.h"
#include "tests/support/simt/source_line.h"

// The variables of CUDA's names; cuda_runtime.h declares them.
simt::Indices simt_indices;

namespace simt {

thread_local Block* running_block = nullptr;

namespace {

namespace fibre = boost::context::detail;

constexpr std::size_t kStackBytes = 256 << 10, kPage = 4096;

// Stacks of all threads of a block, with a page between them that nothing may touch.
std::uintptr_t stack(unsigned thread) {
  static const std::uintptr_t begin = [] {
    void* data = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) std::abort();
    for (unsigned i = 0; i < kMaxThreads; ++i) {
      mprotect(static_cast<char*>(data) + i * kStackBytes, kPage, PROT_NONE);
    }
    return reinterpret_cast<std::uintptr_t>(data);
  }();
  return begin + thread * kStackBytes;
}

thread_local fibre::fcontext_t scheduler = nullptr;

void to_scheduler() {
  const fibre::transfer_t back = fibre::jump_fcontext(scheduler, nullptr);
  scheduler = back.fctx;
}

void run_thread(fibre::transfer_t from) {
  scheduler = from.fctx;
  Block& block = *running_block;
  block.launch->call(block.launch->arguments);
  block.current->state = Thread::State::kDone;
  to_scheduler();
}

Dim at(std::uint32_t linear, const Dim& size) {
  return {linear % size.x, linear / size.x % size.y, linear / size.x / size.y};
}

void begin_block(Block& block, std::uint32_t number) {
  const Dim& size = block.launch->block;
  block.number = number;
  block.index = at(number, block.launch->grid);
  block.threads.assign(size.x * size.y * size.z, {});
  block.alive = block.size();
  block.at_barrier = 0;
  block.runnable.resize(block.size());
  std::iota(block.runnable.begin(), block.runnable.end(), 0u);
  for (NamedBarrier& barrier : block.named) barrier = {};
  block.order.begin(number, block.size());
  for (unsigned i = 0; i < block.size(); ++i) {
    Thread& thread = block.threads[i];
    thread.number = i;
    thread.index = at(i, size);
    thread.stack_begin = stack(i) + kPage;
    thread.stack_end = stack(i) + kStackBytes;
    thread.context = fibre::make_fcontext(reinterpret_cast<void*>(thread.stack_end),
                                          kStackBytes - kPage, run_thread);
  }
  // Shared memory does not outlive a block.
  Memory& memory = Memory::instance();
  const std::size_t bytes = block.launch->shared_bytes;
  if (bytes > 0) {
    std::memset(reinterpret_cast<void*>(memory.shared()), kPoison, bytes);
    std::memset(memory.state(memory.shared()), kAllocated, bytes);
    std::memset(static_cast<void*>(memory.word(memory.shared())), 0,
                (bytes + 3) / 4 * sizeof(Word));
  }
  const std::uint32_t poison = 0xFFFFFFFF;
  for (auto& [address, word] : block.static_shared) {
    word = {};
    std::memcpy(reinterpret_cast<void*>(address), &poison, sizeof poison);
  }
}

Finding finding_about(Kind kind, const Thread& thread, const std::string& text, Place place) {
  const Block& block = *running_block;
  Finding finding;
  finding.kind = kind;
  finding.kernel = function_name(block.launch->kernel);
  finding.block = block.index;
  finding.thread = thread.index;
  const auto dim = [](const Dim& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
  };
  finding.text = "kernel " + finding.kernel + ", block " + dim(block.index) + ", thread " +
                 dim(thread.index) + " at " + place.file + ":" + std::to_string(place.line) + " " +
                 text;
  finding.place = std::move(place);
  return finding;
}

void report_open_barriers(const Block& block) {
  for (const NamedBarrier& barrier : block.named) {
    if (barrier.arrived.empty()) continue;
    report(finding_about(Kind::kBarrierDivergence, block.threads[barrier.arrived.back()],
                         "arrived at a barrier for " + std::to_string(barrier.threads) +
                             " threads, of which " + std::to_string(barrier.arrived.size()) +
                             " came before the block ended",
                         to_place(barrier.where)));
  }
}

void end_block(Block& block) {
  if (!block.failed) report_open_barriers(block);
  Memory& memory = Memory::instance();
  std::memset(memory.state(memory.shared()), 0, block.launch->shared_bytes);
  count_block(block);
}

void resume(Block& block, Thread& thread) {
  block.current = &thread;
  simt_indices.thread = thread.index;
  const fibre::transfer_t back = fibre::jump_fcontext(thread.context, nullptr);
  thread.context = back.fctx;
  block.current = nullptr;
}

// All threads that live wait at a barrier of the whole block.
void open_barrier(Block& block) {
  const auto waiting =
      std::find_if(block.threads.begin(), block.threads.end(),
                   [](const Thread& t) { return t.state == Thread::State::kWaiting; });
  int count = 0;
  for (Thread& thread : block.threads) {
    const Where& first = waiting->wait.where;
    if (thread.state == Thread::State::kDone) {
      report(finding_about(Kind::kBarrierDivergence, *waiting,
                           "waits at __syncthreads, but " + thread_name(thread) + " has exited",
                           to_place(first)));
      break;
    }
    if (thread.wait.where.line() != first.line() || thread.wait.vote != waiting->wait.vote) {
      report(finding_about(
          Kind::kBarrierDivergence, *waiting,
          "waits at __syncthreads, but " + thread_name(thread) + " " + describe_wait(thread),
          to_place(first)));
      break;
    }
  }
  for (const Thread& thread : block.threads) {
    if (thread.state == Thread::State::kWaiting) count += thread.wait.predicate != 0;
  }
  block.order.barrier();
  for (Thread& thread : block.threads) {
    if (thread.state != Thread::State::kWaiting) continue;
    switch (thread.wait.vote) {
      case BarrierVote::kNone:
        break;
      case BarrierVote::kCount:
        thread.wait.result = static_cast<std::uint64_t>(count);
        break;
      case BarrierVote::kAnd:
        thread.wait.result = static_cast<unsigned>(count) == block.alive;
        break;
      case BarrierVote::kOr:
        thread.wait.result = count > 0;
        break;
    }
    make_runnable(thread);
  }
  block.at_barrier = 0;
}

// Nobody can run: says who waits for what, and gives the grid up.
void report_stuck(Block& block) {
  const auto waits_for = [&](Wait::For what) -> Thread* {
    for (Thread& thread : block.threads) {
      if (thread.state == Thread::State::kWaiting && thread.wait.what == what) return &thread;
    }
    return nullptr;
  };
  block.failed = true;
  Thread* const at_warp = waits_for(Wait::For::kWarp);
  if (at_warp) {
    // A lane of the mask that does something else.
    const unsigned first = at_warp->number / kWarpSize * kWarpSize;
    for (unsigned l = 0; l < kWarpSize && first + l < block.size(); ++l) {
      const Thread& other = block.threads[first + l];
      const bool here = other.state == Thread::State::kWaiting &&
                        other.wait.what == Wait::For::kWarp &&
                        other.wait.operation == at_warp->wait.operation &&
                        other.wait.mask == at_warp->wait.mask &&
                        other.wait.where.line() == at_warp->wait.where.line();
      if (!(at_warp->wait.mask >> l & 1) || here) continue;
      return report(finding_about(Kind::kWarpDivergence, *at_warp,
                                  describe_wait(*at_warp) + ", but " + thread_name(other) +
                                      " of its mask " + describe_wait(other),
                                  to_place(at_warp->wait.where)));
    }
  }
  Thread* waiting = waits_for(Wait::For::kBlock);
  const Kind kind = waiting ? Kind::kBarrierDivergence : Kind::kDeadlock;
  if (!waiting) waiting = waits_for(Wait::For::kNamed);
  if (!waiting) waiting = waits_for(Wait::For::kCondition);
  if (!waiting) waiting = waits_for(Wait::For::kTurn);
  std::string text = describe_wait(*waiting);
  for (const Thread& other : block.threads) {
    if (&other == waiting ||
        (other.state == Thread::State::kWaiting && other.wait.what == waiting->wait.what &&
         other.wait.where.line() == waiting->wait.where.line())) {
      continue;
    }
    text += ", but " + thread_name(other) + " " + describe_wait(other);
    break;
  }
  report(finding_about(kind, *waiting, text, to_place(waiting->wait.where)));
}

bool wake_conditions(Block& block) {
  bool any = false;
  for (Thread& thread : block.threads) {
    if (thread.state != Thread::State::kWaiting) continue;
    if (thread.wait.what == Wait::For::kCondition && (*thread.wait.ready)()) {
      make_runnable(thread);
      any = true;
    }
  }
  return any;
}

// A turn comes when nobody else can run: a loop that waits for another thread's write lets all
// others go first. A block that does nothing but take turns waits for what never comes.
bool wake_turns(Block& block) {
  bool any = false;
  for (Thread& thread : block.threads) {
    if (thread.state == Thread::State::kWaiting && thread.wait.what == Wait::For::kTurn) {
      make_runnable(thread);
      any = true;
    }
  }
  return any;
}

void run_block(Block& block) {
  constexpr int kMostTurns = 10000;
  int turns = 0;
  while (block.alive > 0 && !block.failed) {
    if (block.at_barrier == block.alive) open_barrier(block);
    if (block.runnable.empty()) {
      if (wake_conditions(block)) continue;
      if (++turns < kMostTurns && wake_turns(block)) continue;
      report_stuck(block);
      return;
    }
    const std::size_t pick = schedule()() % block.runnable.size();
    std::swap(block.runnable[pick], block.runnable.back());
    Thread& thread = block.threads[block.runnable.back()];
    block.runnable.pop_back();
    resume(block, thread);
    if (thread.state == Thread::State::kDone) --block.alive;
    if (!(thread.state == Thread::State::kWaiting && thread.wait.what == Wait::For::kTurn)) {
      turns = 0;
    }
  }
}

}  // namespace

bool run_grid(const Launch& launch, const Operation& operation) {
  Block block;
  block.launch = &launch;
  block.operation = &operation;
  const DeviceAccess access;
  Block* const outer = std::exchange(running_block, &block);
  const Indices outer_indices = simt_indices;
  simt_indices.block_dim = launch.block;
  simt_indices.grid_dim = launch.grid;
  std::vector<std::uint32_t> order(launch.grid.x * launch.grid.y * launch.grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), schedule());
  count_launch(block);
  for (const std::uint32_t number : order) {
    begin_block(block, number);
    simt_indices.block = block.index;
    run_block(block);
    end_block(block);
    if (block.failed) break;
  }
  running_block = outer;
  simt_indices = outer_indices;
  return !block.failed;
}

bool in_kernel() {
  return running_block && running_block->current && !running_block->current->in_simulator;
}

Place to_place(const Where& where) {
  const std::string file = where.file_name();
  const auto slash = file.rfind('/');
  return {slash == std::string::npos ? file : file.substr(slash + 1),
          static_cast<int>(where.line())};
}

std::string place_name(const Where& where) {
  const Place place = to_place(where);
  return place.file + ":" + std::to_string(place.line);
}

std::string thread_name(const Thread& thread) {
  const Dim& i = thread.index;
  return "thread (" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " +
         std::to_string(i.z) + ")";
}

std::string describe_wait(const Thread& thread) {
  const Wait& wait = thread.wait;
  if (thread.state == Thread::State::kDone) return "has exited";
  if (thread.state == Thread::State::kRunnable) return "still runs";
  char mask[16];
  std::snprintf(mask, sizeof mask, "0x%08x", wait.mask);
  const std::string place = " (" + place_name(wait.where) + ")";
  switch (wait.what) {
    case Wait::For::kBlock:
      return "waits at __syncthreads" + place;
    case Wait::For::kNamed:
      return "waits at barrier " + std::to_string(wait.barrier) + " for " +
             std::to_string(wait.threads) + " threads" + place;
    case Wait::For::kWarp:
      return std::string("waits at ") +
             (wait.operation == WarpOperation::kCollective ? wait.name
                                                           : to_string(wait.operation)) +
             " with mask " + mask + place;
    case Wait::For::kCondition:
      return "waits for " + (*wait.describe)() + place;
    case Wait::For::kTurn:
      return "spins" + place;
    case Wait::For::kNothing:
      break;
  }
  return "waits";
}

void make_runnable(Thread& thread) {
  thread.state = Thread::State::kRunnable;
  running_block->runnable.push_back(thread.number);
}

void stop_here() {
  running_block->current->state = Thread::State::kWaiting;
  to_scheduler();
}

void switch_away() {
  to_scheduler();
}

void report_here(Kind kind, const std::string& text, const Where& where) {
  const InSimulator scope;
  report(finding_about(kind, *running_block->current, text, to_place(where)));
}

void report_at(Kind kind, const std::string& text, const Place& place) {
  report(finding_about(kind, *running_block->current, text, place));
}

void give_up_here() {
  running_block->failed = true;
  to_scheduler();
  __builtin_unreachable();
}

void fail_here(Kind kind, const std::string& text, const Where& where) {
  report_here(kind, text, where);
  give_up_here();
}

int sync_block(BarrierVote vote, int predicate, const Where& where) {
  const InSimulator scope;
  Block& block = *running_block;
  block.current->wait = {
      .what = Wait::For::kBlock, .where = where, .vote = vote, .predicate = predicate};
  ++block.at_barrier;
  Thread& thread = *block.current;
  stop_here();
  return static_cast<int>(thread.wait.result);
}

namespace {

// True when the barrier has opened.
bool arrive(unsigned barrier, unsigned threads, const Where& where) {
  Block& block = *running_block;
  if (barrier >= std::size(block.named) || threads % kWarpSize != 0 || threads == 0) {
    fail_here(Kind::kBadInstruction,
              "names barrier " + std::to_string(barrier) + " for " + std::to_string(threads) +
                  " threads: there are 16, for multiples of 32",
              where);
  }
  NamedBarrier& named = block.named[barrier];
  if (!named.arrived.empty() && named.threads != threads) {
    fail_here(Kind::kBarrierDivergence,
              "arrives at barrier " + std::to_string(barrier) + " for " + std::to_string(threads) +
                  " threads, but " + thread_name(block.threads[named.arrived.front()]) + " for " +
                  std::to_string(named.threads),
              where);
  }
  if (std::count(named.arrived.begin(), named.arrived.end(), block.current->number)) {
    fail_here(Kind::kBarrierDivergence,
              "arrives at barrier " + std::to_string(barrier) + " again before it has opened",
              where);
  }
  named.threads = threads;
  named.where = where;
  named.arrived.push_back(block.current->number);
  if (named.arrived.size() < threads) return false;
  const std::vector<unsigned> arrived = std::exchange(named.arrived, {});
  block.order.barrier(arrived);
  for (const unsigned number : arrived) {
    Thread& thread = block.threads[number];
    if (thread.state == Thread::State::kWaiting && thread.wait.what == Wait::For::kNamed &&
        thread.wait.barrier == barrier) {
      make_runnable(thread);
    }
  }
  return true;
}

}  // namespace

void sync_named(unsigned barrier, unsigned threads, const Where& where) {
  const InSimulator scope;
  Block& block = *running_block;
  if (arrive(barrier, threads, where)) return;
  block.current->wait = {
      .what = Wait::For::kNamed, .where = where, .barrier = barrier, .threads = threads};
  stop_here();
}

void arrive_named(unsigned barrier, unsigned threads, const Where& where) {
  const InSimulator scope;
  arrive(barrier, threads, where);
}

void yield() {
  const InSimulator scope;
  running_block->current->wait = {.what = Wait::For::kTurn, .where = Where::current()};
  stop_here();
}

void wait_until(const std::function<bool()>& ready, const std::function<std::string()>& describe,
                const Where& where) {
  const InSimulator scope;
  if (ready()) return;
  running_block->current->wait = {
      .what = Wait::For::kCondition, .where = where, .ready = &ready, .describe = &describe};
  stop_here();
}

void* publish_here(void* clock) {
  const InSimulator scope;
  Block& block = *running_block;
  if (!clock) clock = block.clocks.emplace_back(std::make_unique<ThreadClock>()).get();
  block.order.publish(block.current->number, *static_cast<ThreadClock*>(clock));
  return clock;
}

void acquire_here(const void* clock) {
  const InSimulator scope;
  Block& block = *running_block;
  if (clock) block.order.acquire(block.current->number, *static_cast<const ThreadClock*>(clock));
}

void fence() {
  const InSimulator scope;
  Block& block = *running_block;
  Thread& thread = *block.current;
  block.order.acquire(thread.number, thread.observed);
  thread.observed = {};
  thread.released = std::make_shared<ThreadClock>();
  block.order.publish(thread.number, *thread.released);
}

void atomic_order(std::uintptr_t address) {
  const InSimulator scope;
  Block& block = *running_block;
  Thread& thread = *block.current;
  const auto found = block.atomics.find(address);
  if (found != block.atomics.end()) thread.observed.join(found->second);
  if (thread.released) block.atomics[address].join(*thread.released);
}

std::uintptr_t dynamic_shared_memory() {
  return Memory::instance().shared();
}

std::uint64_t shared_memory_bytes() {
  return running_block->launch->shared_bytes;
}

unsigned lane() {
  return running_block->current->number % kWarpSize;
}

std::uint32_t active_lanes() {
  return 1u << lane();
}

}  // namespace simt
