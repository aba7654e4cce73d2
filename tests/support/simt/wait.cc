#include <algorithm>
#include <cstdio>
#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/source_line.h"

// What threads wait for: barriers, conditions, a turn.

namespace simt {

namespace {

Place place_of(const Wait& wait) {
  return wait.code ? source_line(wait.code - 1).place : to_place(wait.where);
}

}  // namespace

std::string describe_wait(const Thread& thread) {
  const Wait& wait = thread.wait;
  if (thread.state == Thread::State::kDone) return "has exited";
  if (thread.state == Thread::State::kRunnable) return "still runs";
  char mask[16];
  std::snprintf(mask, sizeof mask, "0x%08x", wait.mask);
  const Place at = place_of(wait);
  const std::string place = " (" + at.file + ":" + std::to_string(at.line) + ")";
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
    case Wait::For::kCluster:
      return "waits at the barrier of the cluster" + place;
    case Wait::For::kCondition:
      return "waits for " + (*wait.describe)() + place;
    case Wait::For::kTurn:
      return "spins" + place;
    case Wait::For::kNothing:
      break;
  }
  return "waits";
}

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

void report_stuck(Block& block) {
  const auto waits_for = [&](Wait::For what) -> Thread* {
    for (Thread& thread : block.threads) {
      if (thread.state == Thread::State::kWaiting && thread.wait.what == what) return &thread;
    }
    return nullptr;
  };
  block.grid->failed = true;
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
  // Who waits for something else keeps the others at their barrier.
  Thread* waiting = waits_for(Wait::For::kCondition);
  if (!waiting) waiting = waits_for(Wait::For::kTurn);
  const Kind kind =
      waiting || !waits_for(Wait::For::kBlock) ? Kind::kDeadlock : Kind::kBarrierDivergence;
  if (!waiting) waiting = waits_for(Wait::For::kBlock);
  if (!waiting) waiting = waits_for(Wait::For::kNamed);
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
  report(finding_about(kind, *waiting, text, place_of(waiting->wait)));
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

void yield(const Where& where, std::uintptr_t code) {
  const InSimulator scope;
  running_block->current->wait = {.what = Wait::For::kTurn, .where = where, .code = code};
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

}  // namespace simt
