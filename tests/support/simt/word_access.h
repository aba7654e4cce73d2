#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "tests/support/simt/block.h"
#include "tests/support/simt/observe.h"
#include "tests/support/simt/race.h"
#include "tests/support/simt/source_line.h"

// An access as the words that it touches see it: what it is behind, and what it races with.
namespace simt {

/// What the operation that runs was seen to use already.
struct Uses {
  std::uint32_t operation = 0;
  std::uintptr_t begin = 0, end = 0;  // the last allocation
  std::uint32_t ordered_before = 0;   // the last operation found to be so
};
extern constinit thread_local Uses uses;

void begin_other_operation(std::uint32_t operation);
inline void begin_operation(const Operation& operation) {
  if (uses.operation != operation.id) begin_other_operation(operation.id);
}

/// Whether nothing of this kind was found at this place in the operation.
bool first_time(Kind kind, std::uintptr_t code);
/// Reports what is found for the first time.
void say(Kind kind, const std::string& text, std::uintptr_t code);

/// Whether an operation is before the one that runs.
inline bool before_now(std::uint32_t earlier, const Operation& now) {
  if (uses.ordered_before == earlier) return true;
  if (!ordered(earlier, now)) return false;
  uses.ordered_before = earlier;
  return true;
}

/// Who accesses memory, and from where.
struct Actor {
  unsigned number = 0;  // in BlockOrder
  const Asynchronous* operation = nullptr;
  std::uintptr_t code = 0;
};

/// "issued a bulk copy, which ", of an operation.
std::string subject(const Actor& actor);
std::string describe(std::uintptr_t address);

/// An access of one or more words.
struct WordAccess {
  WordAccess(const Actor& by, Touch its_touch, std::size_t its_size, bool is_shared)
      : actor(by), touch(its_touch), size(its_size), shared(is_shared) {
    now.operation = block.operation->id;
    now.thread = first + actor.number;
    now.epoch = block.order.epoch(actor.number);
    now.code = (actor.code - program().base) & 0x3FFFFFF;
    now.writes = touch != Touch::kRead;
    now.atomic = touch == Touch::kAtomic;
  }

  /// Whether an access that was kept is before this one.
  bool is_behind(const Access& earlier) const {
    if (earlier.operation != now.operation) {
      return shared || before_now(earlier.operation, *block.operation);
    }
    const std::uint32_t thread = earlier.thread - first;
    if (thread < stride) {  // of this block
      return thread == actor.number || BlockOrder::knows(known, thread, earlier.epoch);
    }
    return block.order.knows(actor.number, earlier.thread / stride, earlier.thread % stride,
                             earlier.epoch);
  }

  const Actor& actor;
  const Touch touch;
  const std::size_t size;
  const bool shared;
  const Block& block = *running_block;
  const std::uint32_t stride = block.size() + kMostAsynchronous;
  const std::uint32_t first = block.global_number(0);
  const std::span<const std::uint32_t> known = block.order.known_here(actor.number);
  Access now;
};

/// What an asynchronous operation finds that threads wrote.
void check_fences(const WordAccess& access, const Word& word, std::uintptr_t address);
void report_race(const WordAccess& access, const Access& racing, std::uintptr_t address);

/// Records the access to one word and reports a race, or a missing fence between proxies.
inline void check_word(WordAccess& access, Word& word, std::uint32_t bytes,
                       std::uintptr_t address) {
  access.now.bytes = bytes & 0xF;
  if (access.actor.operation) check_fences(access, word, address);
  const auto racing = record(
      word, access.now, [&](const Access& earlier) { return access.is_behind(earlier); },
      schedule());
  if (racing) report_race(access, *racing, address);
}

}  // namespace simt
