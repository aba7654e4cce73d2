#pragma once

#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "tests/support/simt/grid.h"
#include "tests/support/simt/order.h"
#include "tests/support/simt/race.h"
#include "tests/support/simt/stream.h"

namespace simt {

// The block that runs. Blocks run one after another, so there is one of it.

struct Wait {
  enum class For { kNothing, kBlock, kNamed, kWarp, kCondition, kTurn };
  For what = For::kNothing;
  Where where = {};
  std::uint32_t mask = 0;  // kWarp
  WarpOperation operation = WarpOperation::kSync;
  WarpArgument argument = {};
  const char* name = "";  // of a collective
  void* mine = nullptr;
  void (*all)(void* const*) = nullptr;
  unsigned barrier = 0, threads = 0;  // kNamed
  BarrierVote vote = BarrierVote::kNone;
  int predicate = 0;
  std::uint64_t result = 0;
  const std::function<bool()>* ready = nullptr;
  const std::function<std::string()>* describe = nullptr;
};

/// cp.async of 16 bytes that has not arrived.
struct AsyncCopy {
  std::uintptr_t to, from, code;
};

struct Thread {
  enum class State { kRunnable, kWaiting, kDone };
  unsigned number = 0;  // in the block
  Dim index;
  void* context = nullptr;
  std::uintptr_t stack_begin = 0, stack_end = 0;
  State state = State::kRunnable;
  bool in_simulator = false;  // whose own accesses are nobody's business
  Wait wait;
  std::shared_ptr<ThreadClock> released;            // at the last fence
  std::vector<AsyncCopy> copies;                    // since the last commit
  std::vector<std::vector<AsyncCopy>> copy_groups;  // the oldest first
  ThreadClock observed;                             // by atomics since the last fence
};

/// Four bytes of a `__shared__` variable that is no dynamic shared memory.
struct StaticWord {
  Word word;
  std::uint8_t written = 0;  // a bit for each byte
};

struct NamedBarrier {
  unsigned threads = 0;  // that it waits for; 0 when nobody has come
  std::vector<unsigned> arrived;
  Where where = {};  // of the last to arrive
};

struct Block {
  const Launch* launch = nullptr;
  const Operation* operation = nullptr;
  Dim index;
  std::uint32_t number = 0;  // in the grid
  std::vector<Thread> threads;
  unsigned alive = 0, at_barrier = 0;
  Thread* current = nullptr;
  bool failed = false;
  std::vector<unsigned> runnable;
  NamedBarrier named[16];
  BlockOrder order;
  std::unordered_map<std::uintptr_t, StaticWord> static_shared;
  std::unordered_map<std::uintptr_t, ThreadClock> atomics;  // of the grid
  std::vector<std::unique_ptr<ThreadClock>> clocks;         // of the grid

  unsigned size() const { return static_cast<unsigned>(threads.size()); }
};

/// Of the grid that this host thread runs, or null.
extern thread_local Block* running_block;

/// The thread that runs is in the simulator's code for a scope. That code shares functions of the
/// standard library with the kernels' files, where the compiler has them call observe().
class InSimulator {
 public:
  InSimulator() : thread_(*running_block->current), outer_(thread_.in_simulator) {
    thread_.in_simulator = true;
  }
  ~InSimulator() { thread_.in_simulator = outer_; }
  InSimulator(const InSimulator&) = delete;
  InSimulator& operator=(const InSimulator&) = delete;

 private:
  Thread& thread_;
  const bool outer_;
};

/// Makes the thread that runs wait, and returns when it is runnable again.
void stop_here();
/// The same for a thread whose state is set.
void switch_away();
void report_at(Kind kind, const std::string& text, const Place& place);
[[noreturn]] void give_up_here();
void make_runnable(Thread& thread);
/// "thread (3, 0, 0)"
std::string thread_name(const Thread& thread);
std::string place_name(const Where& where);
/// "waits at __syncthreads (planted.cu:40)"
std::string describe_wait(const Thread& thread);
Place to_place(const Where& where);

/// Lets the warp operation that the thread waits for happen, if all lanes are there.
void try_warp_operation(Block& block, Thread& arrived);

}  // namespace simt
