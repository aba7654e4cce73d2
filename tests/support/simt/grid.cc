#include "tests/support/simt/grid.h"

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <cstring>
#include <numeric>
#include <utility>

#include "tests/support/simt/asynchronous.h"
#include "tests/support/simt/block.h"
#include "tests/support/simt/bulk_copy.h"
#include "tests/support/simt/cluster.h"
#include "tests/support/simt/counters.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/sectors.h"
#include "tests/support/simt/stacks.h"
#include "tests/support/simt/wgmma.h"

// The variables of CUDA's names; cuda_runtime.h declares them.
simt::Indices simt_indices;

namespace simt {

constinit thread_local Block* running_block = nullptr;

namespace {

namespace fibre = boost::context::detail;

constexpr std::uint32_t kPoisonWord = 0xFFFFFFFF;

thread_local fibre::fcontext_t scheduler = nullptr;

// Keeps where the other side goes on: the thread that it names, or the scheduler.
void keep(fibre::transfer_t other) {
  (other.data ? static_cast<Thread*>(other.data)->context : scheduler) = other.fctx;
}

void to_scheduler() {
  keep(fibre::jump_fcontext(scheduler, nullptr));
}

// What a thread needs first when it goes on.
void prefetch(const Thread& thread) {
  const char* const context = static_cast<const char*>(thread.context);
  for (std::size_t at = 0; at < 512; at += 64) __builtin_prefetch(context + at, 1);
}

// Some runnable thread, which is so no more. Mostly it is the one that was drawn at the time
// before: its stack, which is rarely in the cache, comes there while another thread runs.
Thread& take_runnable(Block& block) {
  std::vector<unsigned>& runnable = block.runnable;
  const std::uint64_t drawn = schedule()();
  const auto below = [](std::uint32_t bits, std::size_t size) { return bits * size >> 32; };
  std::size_t& next = block.next;
  if (drawn % 4 == 0 || next >= runnable.size()) {
    next = below(static_cast<std::uint32_t>(drawn), runnable.size());
  }
  std::swap(runnable[next], runnable.back());
  Thread& thread = block.threads[runnable.back()];
  runnable.pop_back();
  if (runnable.empty()) {
    next = Block::kNotDrawn;
  } else {
    next = below(static_cast<std::uint32_t>(drawn >> 32), runnable.size());
    prefetch(block.threads[runnable[next]]);
  }
  return thread;
}

void make_current(Block& block, Thread& thread) {
  block.current = &thread;
  simt_indices.thread = thread.index;
}

void run_thread(fibre::transfer_t from) {
  keep(from);
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
  block.at_warp_operation.assign(block.size() / kWarpSize + 1, 0);
  for (NamedBarrier& barrier : block.named) barrier = {};
  block.mbarriers.clear();
  block.products.clear();
  block.registers.clear();
  block.free_registers = 0;
  block.under_way.clear();
  block.asynchronous.clear();
  block.ended = false;
  block.uses.clear();
  block.next = Block::kNotDrawn;
  block.order.begin(number, block.size());
  for (unsigned i = 0; i < block.size(); ++i) {
    Thread& thread = block.threads[i];
    thread.number = i;
    thread.index = at(i, size);
    const Stack stack = stack_of(block.window, i);
    thread.stack_begin = stack.begin;
    thread.stack_end = stack.end;
    thread.context = fibre::make_fcontext(reinterpret_cast<void*>(thread.stack_end),
                                          thread.stack_end - thread.stack_begin, run_thread);
  }
  // Shared memory does not outlive a block.
  Memory& memory = Memory::instance();
  const std::uintptr_t shared = block.shared;
  const std::size_t bytes = block.launch->shared_bytes;
  if (bytes > 0) {
    std::memset(reinterpret_cast<void*>(shared), kPoison, bytes);
    std::memset(memory.state(shared), kAllocated, bytes);
    memory.forget_accesses(shared, bytes);
  }
  for (StaticWord* word : block.static_shared.touched()) {
    *word = {.address = word->address, .value = kPoisonWord};
  }
}

// A `__shared__` variable is one variable for the host: each resident block has its own values.
void enter(Block& block) {
  if (running_block == &block) return;
  for (StaticWord* word : running_block->static_shared.touched()) {
    std::memcpy(&word->value, reinterpret_cast<const void*>(word->address), sizeof word->value);
    std::memcpy(reinterpret_cast<void*>(word->address), &kPoisonWord, sizeof kPoisonWord);
  }
  for (const StaticWord* word : block.static_shared.touched()) {
    std::memcpy(reinterpret_cast<void*>(word->address), &word->value, sizeof word->value);
  }
  running_block = &block;
}

void end_block(Block& block) {
  if (!block.grid->failed) {
    report_open_barriers(block);
    report_left_behind(block);
    report_products_left_behind(block);
    while (finish_one(block)) {
    }
    report_late_uses(block);
  }
  for (const StaticWord* word : block.static_shared.touched()) {
    std::memcpy(reinterpret_cast<void*>(word->address), &kPoisonWord, sizeof kPoisonWord);
  }
  count_block(block);
  block.ended = true;
}

void begin_cluster(Cluster& cluster, std::uint32_t number) {
  cluster.ended = cluster.arrivals = cluster.phase = 0;
  cluster.arrived = cluster.completed = {};
  cluster.alive = 0;
  for (Block* block : cluster.blocks) {
    begin_block(*block, number++);
    cluster.alive += block->alive;
  }
}

// Others of the cluster may touch a block's shared memory as long as they live, which is found.
void end_cluster(Cluster& cluster) {
  for (const Block* block : cluster.blocks) {
    std::memset(Memory::instance().state(block->shared), 0, block->launch->shared_bytes);
  }
}

// Finds a thread of the block that can go on, without a turn. What is asynchronous happens when
// nobody can.
bool can_go_on(Block& block) {
  if (block.at_barrier == block.alive) open_barrier(block);
  if (!block.runnable.empty()) return true;
  do {
    if (wake_conditions(block)) return true;
  } while (finish_one(block));
  return false;
}

// The grid, as many of its blocks at a time as there is room for.
class Schedule {
 public:
  explicit Schedule(Grid& grid)
      : grid_(grid), waiting_(blocks_of(*grid.launch) / grid.launch->cluster_size) {
    std::iota(waiting_.begin(), waiting_.end(), 0u);
    std::shuffle(waiting_.begin(), waiting_.end(), schedule());
    const unsigned size = grid.launch->cluster_size;
    const unsigned room = grid.launch->cooperative ? blocks_of(*grid.launch) : resident_blocks();
    const std::size_t clusters = std::min<std::size_t>(std::max(room / size, 1u), waiting_.size());
    for (unsigned window = 0; window < clusters * size; ++window) {
      if (window % size == 0) {
        free_.push_back(clusters_.emplace_back(std::make_unique<Cluster>()).get());
      }
      Block& block = *blocks_.emplace_back(std::make_unique<Block>());
      block.grid = &grid;
      block.launch = grid.launch;
      block.operation = grid.operation;
      block.cluster = free_.back();
      block.window = window;
      block.shared = Memory::instance().shared(window);
      if (block.cluster->blocks.empty()) block.cluster->shared = block.shared;
      block.cluster->blocks.push_back(&block);
    }
  }

  void run() {
    running_block = blocks_.front().get();
    count_launch(*running_block);
    while (!grid_.failed) {
      admit();
      if (live_.empty()) return;
      std::vector<Block*> able = find_able();
      // A copy that came last may let a block go on that was asked before.
      if (able.empty() && grid_.launch->cluster_size > 1) able = find_able();
      if (able.empty()) {
        take_turns();
        continue;
      }
      Block& block = *able[able.size() == 1 ? 0 : schedule()() % able.size()];
      enter(block);
      run_for_a_while(block);
    }
    for (Block* block : live_) {
      enter(*block);
      end_block(*block);
      end_cluster(*block->cluster);
    }
  }

 private:
  static unsigned blocks_of(const Launch& launch) {
    return launch.grid.x * launch.grid.y * launch.grid.z;
  }

  std::vector<Block*> find_able() {
    std::vector<Block*> able;
    for (Block* block : live_) {
      enter(*block);
      if (can_go_on(*block)) able.push_back(block);
    }
    return able;
  }

  void admit() {
    while (!waiting_.empty() && !free_.empty()) {
      Cluster& cluster = *free_.back();
      free_.pop_back();
      begin_cluster(cluster, waiting_.back() * grid_.launch->cluster_size);
      waiting_.pop_back();
      live_.insert(live_.end(), cluster.blocks.begin(), cluster.blocks.end());
    }
  }

  void run_for_a_while(Block& block) {
    block.steps = live_.size() == 1 ? kSteps : schedule()() % kSteps + 1;
    while (block.steps > 0 && !grid_.failed && !block.runnable.empty()) {
      const std::size_t steps = --block.steps;
      const Thread& last = resume(block, take_runnable(block));
      if (last.state == Thread::State::kDone) {
        --block.alive;
        leave_cluster(block, last);
      }
      if (block.steps < steps || last.state != Thread::State::kWaiting ||
          last.wait.what != Wait::For::kTurn) {
        turns_ = 0;
      }
    }
    if (block.alive > 0 || grid_.failed) return;
    end_block(block);
    std::erase(live_, &block);
    Cluster& cluster = *block.cluster;
    if (++cluster.ended < cluster.blocks.size()) return;
    end_cluster(cluster);
    free_.push_back(&cluster);
  }

  // A turn comes when nobody else can run: a loop that waits for another thread's write lets all
  // others go first. A grid that does nothing but take turns waits for what never comes.
  void take_turns() {
    constexpr int kMostTurns = 10000;
    bool any = false;
    if (++turns_ < kMostTurns) {
      for (Block* block : live_) {
        enter(*block);
        any = wake_turns(*block) || any;
      }
    }
    if (any) return;
    // Who waits for something else holds up the cluster.
    const auto stuck = std::find_if(live_.begin(), live_.end(), holds_up_cluster);
    enter(**stuck);
    report_stuck(**stuck);
  }

  static constexpr std::size_t kSteps = 256;  // before another block may come

  Grid& grid_;
  std::vector<std::unique_ptr<Cluster>> clusters_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<Cluster*> free_;
  std::vector<Block*> live_;
  std::vector<std::uint32_t> waiting_;  // clusters that have not begun
  int turns_ = 0;
};

unsigned resident = 1;

}  // namespace

void set_resident_blocks(unsigned blocks) {
  if (blocks == 0 || blocks > kMostResident) std::abort();
  resident = blocks;
}

unsigned resident_blocks() {
  return resident;
}

bool run_grid(const Launch& launch, const Operation& operation) {
  Grid grid;
  grid.launch = &launch;
  grid.operation = &operation;
  const DeviceAccess access;
  Block* const outer = running_block;
  const Indices outer_indices = simt_indices;
  simt_indices.block_dim = launch.block;
  simt_indices.grid_dim = launch.grid;
  Schedule(grid).run();
  running_block = outer;
  simt_indices = outer_indices;
  return !grid.failed;
}

Thread& resume(Block& block, Thread& thread) {
  make_current(block, thread);
  simt_indices.block = block.index;
  const fibre::transfer_t back = fibre::jump_fcontext(thread.context, nullptr);
  Thread& last = *std::exchange(block.current, nullptr);
  last.context = back.fctx;
  return last;
}

void make_runnable(Thread& thread) {
  thread.state = Thread::State::kRunnable;
  running_block->runnable.push_back(thread.number);
}

void stop_here() {
  running_block->current->state = Thread::State::kWaiting;
  switch_away();
}

// To another thread, if there is one while the block's turn lasts: that is one switch where two
// would be by way of the scheduler.
void switch_away() {
  Block& block = *running_block;
  Thread& from = *block.current;
  const bool spins = from.state == Thread::State::kWaiting && from.wait.what == Wait::For::kTurn;
  if (spins || block.steps == 0 || block.grid->failed || block.runnable.empty()) {
    return to_scheduler();
  }
  --block.steps;
  Thread& to = take_runnable(block);
  if (&to == &from) return;
  make_current(block, to);
  keep(fibre::jump_fcontext(to.context, &from));
}

void give_up_here() {
  running_block->grid->failed = true;
  to_scheduler();
  __builtin_unreachable();
}

}  // namespace simt
