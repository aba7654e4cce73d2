#pragma once

#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "tests/support/simt/grid.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/order.h"
#include "tests/support/simt/race.h"
#include "tests/support/simt/source_line.h"
#include "tests/support/simt/stream.h"

namespace simt {

// Blocks and their threads. As many blocks as are resident live at once; one thread runs.

struct Wait {
  enum class For { kNothing, kBlock, kNamed, kWarp, kCluster, kCondition, kTurn };
  For what = For::kNothing;
  Where where = {};
  std::uintptr_t code = 0;  // where it is, instead of `where`
  std::uint32_t mask = 0;   // kWarp
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

/// An operation that the hardware does beside the threads: a bulk copy, a matrix product. Its
/// effect comes at any time from the issue on, and when it is waited for at the latest.
struct Asynchronous {
  const char* name = "";
  unsigned issuer = 0;  // a thread of the block
  unsigned number = 0;  // in BlockOrder
  std::uintptr_t code = 0;
  ThreadClock known;                          // by the issuer at the issue
  std::shared_ptr<Asynchronous> after;        // comes first
  std::function<void(Asynchronous&)> effect;  // touches memory as observe_asynchronous says
  bool done = false;
  ThreadClock clock;  // when it is done
};

/// A thread of BlockOrder that asynchronous operations run on, one after another.
struct AsynchronousThread {
  const char* name = "";
  unsigned issuer = 0;
  bool busy = false;
};
constexpr unsigned kMostAsynchronous = 256;  // in a block at a time

/// Copies from shared memory that a thread committed together: each is read, then written.
struct BulkGroup {
  std::vector<std::shared_ptr<Asynchronous>> reads, writes;
};

/// cp.async of 16 bytes that has not arrived.
struct AsyncCopy {
  std::uintptr_t to, from, code;
};

struct ThreadProducts;
struct WarpProducts;

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
  BulkGroup bulk;                                   // since the last commit
  std::vector<BulkGroup> bulk_groups;               // the oldest first
  std::shared_ptr<ThreadProducts> products;         // of wgmma; null before the first
  ThreadClock observed;                             // by atomics since the last fence
  bool at_cluster = false;                          // arrived at its barrier, and has not waited
  std::uint32_t cluster_phase = 0;                  // in which it arrived
};

/// Four bytes of a `__shared__` variable that is no dynamic shared memory.
struct StaticWord {
  std::uintptr_t address = 0;
  Word word = {};
  std::uint8_t written = 0;  // a bit for each byte
  std::uint32_t value = 0;   // while another block runs
};

/// Those that a block has touched, in pages by their addresses in the program.
class StaticShared {
 public:
  StaticWord& at(std::uintptr_t address) {
    const std::uintptr_t number = (address - program().data_begin) / 4;
    const std::size_t page = number / kPageWords;
    if (page >= pages_.size()) pages_.resize(page + 1);
    if (!pages_[page]) pages_[page] = std::make_unique<StaticWord[]>(kPageWords);
    StaticWord& word = pages_[page][number % kPageWords];
    if (word.address == 0) {
      word.address = address;
      touched_.push_back(&word);
    }
    return word;
  }
  const std::vector<StaticWord*>& touched() const { return touched_; }

 private:
  static constexpr std::size_t kPageWords = 64;

  std::vector<std::unique_ptr<StaticWord[]>> pages_;
  std::vector<StaticWord*> touched_;
};

/// An mbarrier object in shared memory (PTX ISA 9.1, 9.7.13.15).
struct Mbarrier {
  std::uint32_t expected = 0, pending = 0;  // arrivals
  std::int64_t bytes = 0;                   // of transactions, that are to come
  std::uint32_t phase = 0;
  bool seen = true;              // somebody saw the phase before this one complete
  bool fenced = false;           // its initialisation, for the asynchronous proxy
  unsigned initialized_by = 0;   // a thread
  std::uintptr_t copied_by = 0;  // code of a copy that came in this phase or the one before
  ThreadClock arrived;           // what those know who arrived in this phase
  ThreadClock completed;         // the same of the phase before
  // The same of other blocks' threads and copies.
  ThreadClock arrived_of_others, completed_of_others;
};

struct NamedBarrier {
  unsigned threads = 0;  // that it waits for; 0 when nobody has come
  std::vector<unsigned> arrived;
  Where where = {};  // of the last to arrive
};

/// Registers of each thread of a warp (setmaxnreg).
struct WarpRegisters {
  unsigned now = 0;
  std::vector<unsigned> changes = {};
};

/// What the blocks of a grid share.
struct Grid {
  const Launch* launch = nullptr;
  const Operation* operation = nullptr;
  bool failed = false;
  std::unordered_map<std::uintptr_t, ThreadClock> atomics;
  std::vector<std::unique_ptr<ThreadClock>> clocks;
  // The epochs in which a thread of the grid had a fence.proxy.async, in order.
  std::unordered_map<std::uint32_t, std::vector<std::uint32_t>> shared_fences, global_fences;
};

struct Block;

/// Blocks that live together, and their barrier.
struct Cluster {
  std::vector<Block*> blocks;  // by rank; their windows follow each other
  std::uintptr_t shared = 0;   // where the first one begins
  unsigned ended = 0;          // blocks
  unsigned alive = 0;          // threads
  unsigned arrivals = 0;       // of those, in this phase
  std::uint32_t phase = 0;
  ThreadClock arrived;    // what those know who arrived in this phase
  ThreadClock completed;  // the same of the phase before
};

/// The last use of a block's shared memory by a thread of another block, or by a copy to one.
struct Use {
  std::uint32_t epoch = 0;
  unsigned thread = 0;              // of the user's block; a copy's issuer
  const char* operation = nullptr;  // the copy's name
  std::uintptr_t code = 0;
};

struct Block {
  Grid* grid = nullptr;
  const Launch* launch = nullptr;
  const Operation* operation = nullptr;
  Cluster* cluster = nullptr;
  unsigned window = 0;        // of shared memory, and of stacks
  std::uintptr_t shared = 0;  // where the window begins
  Dim index;
  std::uint32_t number = 0;  // in the grid
  std::vector<Thread> threads;
  unsigned alive = 0, at_barrier = 0;
  Thread* current = nullptr;
  std::vector<unsigned> runnable;
  static constexpr std::size_t kNotDrawn = -1;
  std::size_t next = kNotDrawn;             // of those: drawn before its turn
  std::size_t steps = 0;                    // of its threads, before another block may come
  std::vector<unsigned> at_warp_operation;  // lanes that wait, by warps
  NamedBarrier named[16];
  BlockOrder order;
  StaticShared static_shared;
  std::vector<std::shared_ptr<Asynchronous>> under_way;
  std::vector<AsynchronousThread> asynchronous;  // numbered from size()
  std::map<std::uintptr_t, Mbarrier> mbarriers;
  std::vector<std::shared_ptr<WarpProducts>> products;  // of wgmma, by warps
  std::vector<WarpRegisters> registers;                 // by warps, from the first change on
  unsigned free_registers = 0;                          // of each thread of a warp
  bool ended = false;                                   // others of its cluster live still
  std::unordered_map<std::uint32_t, Use> uses;          // of its shared memory, by global numbers

  unsigned size() const { return static_cast<unsigned>(threads.size()); }
  /// The number in the grid of a thread of this block, asynchronous ones too.
  std::uint32_t global_number(unsigned thread) const {
    return number * (size() + kMostAsynchronous) + thread;
  }
};

/// The block whose thread this host thread runs, or null.
extern constinit thread_local Block* running_block;

/// The block of the cluster in whose dynamic shared memory an address lies; the one that runs where
/// it is in none of them.
inline Block& owner_of(std::uintptr_t address) {
  const Cluster& cluster = *running_block->cluster;
  const std::uintptr_t rank = (address - cluster.shared) / kSharedWindow;
  return rank < cluster.blocks.size() ? *cluster.blocks[rank] : *running_block;
}

/// Whether it is dynamic shared memory of the block that runs.
inline bool is_own_shared(std::uintptr_t address) {
  return address - running_block->shared < kSharedWindow;
}

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

/// Runs a thread, and those that it gives way to, until one leaves the choice to the scheduler or
/// ends; returns that one.
Thread& resume(Block& block, Thread& thread);
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
Finding finding_about(Kind kind, const Thread& thread, const std::string& text, Place place);

/// All threads that live wait at a barrier of the whole block: they go on.
void open_barrier(Block& block);
/// Wakes threads whose condition holds; false when there are none.
bool wake_conditions(Block& block);
/// Gives the threads that spin a turn.
bool wake_turns(Block& block);
/// Nobody can run: says who waits for what.
void report_stuck(Block& block);
void report_open_barriers(const Block& block);

/// Lets the warp operation that the thread waits for happen, if all lanes are there.
void try_warp_operation(Block& block, Thread& arrived);

}  // namespace simt
