#include "tests/support/simt/observe.h"

#include <algorithm>
#include <cstring>

#include "tests/support/simt/access_text.h"
#include "tests/support/simt/block.h"
#include "tests/support/simt/cluster.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/sectors.h"
#include "tests/support/simt/wgmma.h"
#include "tests/support/simt/word_access.h"

namespace simt {
namespace {

[[noreturn]] void say_and_stop(Kind kind, const std::string& text, std::uintptr_t code) {
  say(kind, text, code);
  give_up_here();
}

// The allocation that an operation uses now; null where it is the one that it used before.
const Allocation* next_allocation(std::uintptr_t address, const Operation& operation) {
  if (address >= uses.begin && address < uses.end) return nullptr;
  Allocation* a = Memory::instance().find(address);
  uses.begin = a->begin;
  uses.end = a->end();
  a->last_use[operation.stream] = operation.id;
  return a;
}

// Is the use behind the allocation in stream order? Empty when it is.
std::string check_order(const Allocation& a, std::uintptr_t address, const Operation& operation) {
  if (!a.made_by || ordered(a.made_by, operation)) return {};
  return Memory::instance().describe(address) + ", which " + operation_name(a.made_by) +
         " makes: no event orders it before " + operation_name(operation.id);
}

// Kernels reach their own device's memory alone: nothing here lets them reach another's.
std::string check_device(const Allocation& a, std::uintptr_t address, const Operation& operation) {
  if (a.pinned || a.device == operation.device) return {};
  return Memory::instance().describe(address) + " of device " + std::to_string(a.device) +
         ", the kernel is device " + std::to_string(operation.device) + "'s";
}

// Calls f(address of the word, mask of its bytes) for the words of a range.
template <typename F>
void for_each_word(std::uintptr_t address, std::size_t bytes, F f) {
  const std::uintptr_t end = address + bytes;
  for (std::uintptr_t w = address / 4 * 4; w < end; w += 4) {
    std::uint32_t mask = 0xF;
    if (w < address) mask &= 0xFu << (address - w);
    if (w + 4 > end) mask &= 0xFu >> (w + 4 - end);
    f(w, mask);
  }
}

// Calls f(accesses, mask of the bytes, address) for the words of a range in the arena, and once for
// 16 bytes that were never accessed but as a whole.
template <typename F>
void for_each_kept(std::uintptr_t address, std::size_t bytes, bool writes, F f) {
  Memory& memory = Memory::instance();
  const std::uintptr_t end = address + bytes;
  for (std::uintptr_t at = address; at < end;) {
    const std::uintptr_t next = std::min(end, (at | 15) + 1);
    const bool whole = next - at == 16;
    if (!whole && !memory.is_split(at)) memory.split(at);
    if (!memory.is_split(at)) {
      f(memory.word(at), 0xFu, at);
    } else {
      for_each_word(at, next - at,
                    [&](std::uintptr_t w, std::uint32_t mask) { f(memory.word(w), mask, w); });
      if (whole && writes) memory.unite_if_alike(at);
    }
    at = next;
  }
}

void observe_static_shared(std::uintptr_t address, std::size_t bytes, Touch touch,
                           std::uintptr_t code) {
  Block& block = *running_block;
  const Actor actor{block.current->number, nullptr, code};
  WordAccess access(actor, touch, bytes, true);
  bool written = true;
  for_each_word(address, bytes, [&](std::uintptr_t w, std::uint32_t mask) {
    StaticWord& word = block.static_shared.at(w);
    if (touch != Touch::kWrite) written = written && (word.written & mask) == mask;
    if (touch != Touch::kRead) word.written |= static_cast<std::uint8_t>(mask);
    check_word(access, word.word, mask, w);
  });
  if (!written) {
    say(Kind::kNotWritten, sized(touch, bytes) + "a __shared__ variable, which nothing wrote",
        code);
  }
  if (counting.now()) count_access(block, Space::kShared, touch, code, address, bytes);
}

// How many bytes from the first on have the bit set.
std::size_t with_bit(const std::uint8_t* state, std::size_t bytes, std::uint8_t bit) {
  std::size_t i = 0;
  const auto have_bit = [&]<typename T>(T several) {
    std::memcpy(&several, state + i, sizeof several);
    const T bits = static_cast<T>(static_cast<T>(-1) / 0xFF * bit);
    return (several & bits) == bits;
  };
  while (i + 8 <= bytes && have_bit(std::uint64_t{})) i += 8;
  if (i + 4 <= bytes && have_bit(std::uint32_t{})) i += 4;
  while (i < bytes && state[i] & bit) ++i;
  return i;
}

void set_written(std::uint8_t* state, std::size_t bytes) {
  const auto set = [&]<typename T>(T several) {
    std::memcpy(&several, state, sizeof several);
    several = static_cast<T>(several | static_cast<T>(-1) / 0xFF * kWritten);
    std::memcpy(state, &several, sizeof several);
    state += sizeof several;
    bytes -= sizeof several;
  };
  while (bytes >= 8) set(std::uint64_t{});
  if (bytes >= 4) set(std::uint32_t{});
  while (bytes > 0) set(std::uint8_t{});
}

void require_allocated(std::uintptr_t address, std::size_t bytes, Touch touch,
                       std::uintptr_t code) {
  Memory& memory = Memory::instance();
  const bool shared = memory.is_shared(address);
  const bool in_reach = !shared || &owner_of(address) != running_block || is_own_shared(address);
  const std::size_t allocated = in_reach ? with_bit(memory.state(address), bytes, kAllocated) : 0;
  if (allocated == bytes) return;
  const Allocation* a = shared ? nullptr : memory.find(address + allocated);
  const bool freed = a && a->freed_by && address + allocated < a->end();
  say_and_stop(
      freed ? Kind::kUseAfterFree : Kind::kOutOfBounds,
      sized(touch, bytes) + describe(address) +
          (freed    ? ", by " + operation_name(a->freed_by)
           : shared ? " of " + std::to_string(running_block->launch->shared_bytes) + " bytes"
                    : ", which it does not have"),
      code);
}

// An access to the shared memory of another block of the cluster, which has to live.
void observe_neighbour(Block& owner, std::uintptr_t address, std::size_t bytes, Touch touch,
                       const Actor& actor) {
  Block& block = *running_block;
  const auto complain = [&](const char* problem) {
    say(Kind::kNotOrdered, subject(actor) + sized(touch, bytes) + describe(address) + problem,
        actor.code);
  };
  if (owner.ended) return complain(", which has ended");
  if (!block.order.knows_of(actor.number, owner.number)) {
    complain(", of which it knows nothing: the block may not have begun");
  }
  note_use(
      owner, actor.number,
      {block.order.epoch(actor.number), actor.operation ? actor.operation->issuer : actor.number,
       actor.operation ? actor.operation->name : nullptr, actor.code});
}

// An access to memory that is allocated.
void observe_arena(std::uintptr_t address, std::size_t bytes, Touch touch, const Actor& actor) {
  Memory& memory = Memory::instance();
  Block& block = *running_block;
  const bool shared = memory.is_shared(address);
  Block& owner = shared ? owner_of(address) : block;
  if (&owner != &block) observe_neighbour(owner, address, bytes, touch, actor);
  std::uint8_t* state = memory.state(address);
  if (touch != Touch::kWrite) {
    const std::size_t written = with_bit(state, bytes, kWritten);
    if (written < bytes) {
      say(Kind::kNotWritten,
          subject(actor) + sized(touch, bytes) + describe(address + written) +
              ", which nothing wrote",
          actor.code);
    }
  }
  if (touch != Touch::kRead) set_written(state, bytes);
  const Operation& operation = *block.operation;
  if (const Allocation* a = shared ? nullptr : next_allocation(address, operation)) {
    const auto complain = [&](Kind kind, const std::string& problem) {
      if (problem.empty()) return;
      say(kind, subject(actor) + sized(touch, bytes) + problem, actor.code);
    };
    complain(Kind::kOtherDevice, check_device(*a, address, operation));
    complain(Kind::kNotOrdered, check_order(*a, address, operation));
  }
  WordAccess access(actor, touch, bytes, shared);
  for_each_kept(
      address, bytes, touch != Touch::kRead,
      [&](Word& word, std::uint32_t mask, std::uintptr_t w) { check_word(access, word, mask, w); });
  if (!actor.operation && !counting.now()) return;
  const Space space = !shared            ? Space::kGlobal
                      : &owner == &block ? Space::kShared
                                         : Space::kCluster;
  if (actor.operation) {
    count_bulk_access(space, touch, address, bytes);
  } else {
    count_access(block, space, touch, actor.code, address, bytes);
  }
}

// Nothing but mbarrier operations touches an mbarrier that lives.
void keep_off_mbarriers(const std::map<std::uintptr_t, Mbarrier>& mbarriers, std::uintptr_t address,
                        std::size_t bytes, Touch touch, std::uintptr_t code) {
  if (address >= mbarriers.rbegin()->first + 8 || address + bytes <= mbarriers.begin()->first) {
    return;
  }
  auto next = mbarriers.lower_bound(address >= 7 ? address - 7 : 0);
  if (next == mbarriers.end() || next->first >= address + bytes) return;
  say(Kind::kMbarrier, sized(touch, bytes) + "the memory of an mbarrier that was not invalidated",
      code);
}

}  // namespace

void report_at_code(Kind kind, const std::string& text, std::uintptr_t code) {
  const InSimulator scope;
  report_at(kind, text, source_line(code - 1).place);
}

void require_memory(std::uintptr_t address, std::size_t bytes, Touch touch, std::uintptr_t code) {
  const InSimulator scope;
  begin_operation(*running_block->operation);
  if (!Memory::instance().contains(address)) {
    say_and_stop(Kind::kHostMemory, sized(touch, bytes) + "memory that is not the device's", code);
  }
  require_allocated(address, bytes, touch, code);
}

void observe_asynchronous(const Asynchronous& operation, std::uintptr_t address, std::size_t bytes,
                          Touch touch) {
  begin_operation(*running_block->operation);
  observe_arena(address, bytes, touch, {operation.number, &operation, operation.code});
}

namespace {

void observe_any(std::uintptr_t address, std::size_t bytes, Touch touch, bool aligned,
                 std::uintptr_t code) {
  const Block& block = *running_block;
  const Thread& thread = *block.current;
  Memory& memory = Memory::instance();
  if (address >= thread.stack_begin && address < thread.stack_end) {
    if (thread.products) touch_registers(*block.current, address, bytes, touch, code);
    return;
  }
  begin_operation(*block.operation);
  const bool arena = memory.contains(address);
  const std::size_t natural = bytes <= 16 ? bytes : 1;
  if (aligned && (address & (natural - 1)) != 0 && (arena || address < 4096)) {
    say_and_stop(Kind::kMisaligned,
                 sized(touch, bytes) + (arena ? describe(address) : "a null pointer") +
                     ": the address is no multiple of " + std::to_string(natural),
                 code);
  }
  if (arena) {
    // What was kept of these bytes is larger than they are, and rarely in the cache.
    __builtin_prefetch(&memory.word(address), 1);
    require_allocated(address, bytes, touch, code);
    return observe_arena(address, bytes, touch, {thread.number, nullptr, code});
  }
  const Program& p = program();
  if (address >= p.data_begin && address < p.data_end) {
    const auto indices = reinterpret_cast<std::uintptr_t>(&simt_indices);
    if (address >= indices && address < indices + sizeof simt_indices) return;
    return observe_static_shared(address, bytes, touch, code);
  }
  const bool read_only_data = address >= p.begin && address < p.end;
  const auto arguments = reinterpret_cast<std::uintptr_t>(block.launch->arguments);
  const bool is_argument =
      address >= arguments && address < arguments + block.launch->argument_bytes;
  if (read_only_data || is_argument) {
    if (touch == Touch::kRead) return;
    say_and_stop(Kind::kConstantWrite,
                 sized(touch, bytes) + (is_argument ? "its parameters" : "a constant"), code);
  }
  if (block.launch->may_touch_host) return;
  say_and_stop(address < 4096 ? Kind::kOutOfBounds : Kind::kHostMemory,
               sized(touch, bytes) + (address < 4096 ? "a null pointer" : "memory of the host"),
               code);
}

}  // namespace

void observe(std::uintptr_t address, std::size_t bytes, Touch touch, bool aligned,
             std::uintptr_t code) {
  const InSimulator scope;
  const auto& mbarriers = owner_of(address).mbarriers;
  if (!mbarriers.empty()) keep_off_mbarriers(mbarriers, address, bytes, touch, code);
  observe_any(address, bytes, touch, aligned, code);
}

void observe_mbarrier(std::uintptr_t address, std::size_t bytes, Touch touch, bool aligned,
                      std::uintptr_t code) {
  const InSimulator scope;
  observe_any(address, bytes, touch, aligned, code);
}

bool observe_operation(std::uintptr_t address, std::size_t bytes, Touch touch,
                       const Operation& operation) {
  Memory& memory = Memory::instance();
  begin_operation(operation);
  const auto complain = [&](Kind kind, const std::string& text) {
    Finding finding;
    finding.kind = kind;
    finding.text = operation_name(operation.id) + " " + sized(touch, bytes) + text;
    report(std::move(finding));
  };
  std::uint8_t* state = memory.state(address);
  const std::size_t allocated = with_bit(state, bytes, kAllocated);
  if (allocated < bytes) {
    const Allocation* a = memory.find(address + allocated);
    const bool freed = a && a->freed_by && address + allocated < a->end();
    complain(freed ? Kind::kUseAfterFree : Kind::kOutOfBounds,
             memory.describe(address) + (freed ? "" : ", which it does not have"));
    return false;
  }
  if (const Allocation* a = next_allocation(address, operation)) {
    const std::string problem = check_order(*a, address, operation);
    if (!problem.empty()) complain(Kind::kNotOrdered, problem);
  }
  Access now;
  now.operation = operation.id;
  now.writes = touch != Touch::kRead;
  for_each_kept(address, bytes, now.writes, [&](Word& word, std::uint32_t mask, std::uintptr_t w) {
    now.bytes = mask & 0xF;
    const auto racing = record(
        word, now,
        [&](const Access& earlier) {
          return earlier.operation == now.operation || before_now(earlier.operation, operation);
        },
        schedule());
    if (racing && first_time(Kind::kStreamRace, 0)) {
      complain(Kind::kStreamRace, memory.describe(w) + ", which " +
                                      operation_name(racing->operation) +
                                      (racing->writes ? " writes" : " reads") +
                                      ": neither stream order nor an event is between");
    }
  });
  return true;
}

}  // namespace simt
