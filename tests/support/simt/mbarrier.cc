#include "tests/support/simt/mbarrier.h"

#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/cluster.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/observe.h"
#include "tests/support/simt/source_line.h"

namespace simt {
namespace {

constexpr std::uint32_t kMostArrivals = (1 << 20) - 1;
constexpr std::int64_t kMostBytes = (1 << 20) - 1;

std::uintptr_t address_of(const void* mbarrier) {
  return reinterpret_cast<std::uintptr_t>(mbarrier);
}

std::string name_of(std::uintptr_t address) {
  Memory& memory = Memory::instance();
  return memory.is_shared(address)
             ? "the mbarrier at " + memory.describe(address) + owner_name(owner_of(address))
             : "an mbarrier";
}

// What is to come before the phase is over.
std::string state_of(const Mbarrier& m) {
  return "phase " + std::to_string(m.phase) + ", " + std::to_string(m.pending) + " of " +
         std::to_string(m.expected) + " arrivals and " + std::to_string(m.bytes) + " bytes missing";
}

void require_place(std::uintptr_t address, const Where& where) {
  const Program& p = program();
  const bool is_static = address >= p.data_begin && address < p.data_end;
  if (!Memory::instance().is_shared(address) && !is_static) {
    fail_here(Kind::kMbarrier, "uses an mbarrier outside shared memory", where);
  }
  if (address % 8 != 0) {
    fail_here(Kind::kMbarrier, "uses an mbarrier that is not aligned to 8 bytes", where);
  }
}

void require_own(std::uintptr_t address, const Where& where) {
  if (&owner_of(address) == running_block) return;
  fail_here(Kind::kMbarrier,
            "uses " + name_of(address) + " as one of its own block (mbarrier_arrive_at is for it)",
            where);
}

// Of any block of the cluster.
Mbarrier& find_any(std::uintptr_t address, const char* does, const Where& where) {
  require_place(address, where);
  std::map<std::uintptr_t, Mbarrier>& mbarriers = owner_of(address).mbarriers;
  const auto found = mbarriers.find(address);
  if (found == mbarriers.end()) {
    fail_here(Kind::kMbarrier,
              std::string(does) + " " + name_of(address) +
                  ", which was not initialised, or was invalidated",
              where);
  }
  return found->second;
}

Mbarrier& find(std::uintptr_t address, const char* does, const Where& where) {
  require_own(address, where);
  return find_any(address, does, where);
}

// The caller is in the simulator.
void end_phase_if_complete(Mbarrier& m) {
  if (m.pending > 0 || m.bytes != 0) return;
  ++m.phase;
  m.pending = m.expected;
  m.seen = false;
  m.completed = std::exchange(m.arrived, {});
  m.completed_of_others = std::exchange(m.arrived_of_others, {});
}

void add_bytes(Mbarrier& m, std::uintptr_t address, std::int64_t bytes, const Where& where) {
  m.bytes += bytes;
  if (m.bytes > kMostBytes) {
    fail_here(Kind::kMbarrier,
              "expects " + std::to_string(m.bytes) + " bytes at " + name_of(address) +
                  ", of which there can be " + std::to_string(kMostBytes),
              where);
  }
}

// Where threads and copies of the running block leave what they know.
ThreadClock& arrived_at(Mbarrier& m, std::uintptr_t address) {
  return &owner_of(address) == running_block ? m.arrived : m.arrived_of_others;
}

void arrive(Mbarrier& m, std::uintptr_t address, const Where& where) {
  Block& block = *running_block;
  if (m.pending == 0) {
    fail_here(Kind::kMbarrier,
              "arrives at " + name_of(address) + " once more than it was initialised for (" +
                  state_of(m) + ")",
              where);
  }
  if (!m.seen) {
    m.seen = true;
    report_here(Kind::kMbarrier,
                "arrives in phase " + std::to_string(m.phase) + " of " + name_of(address) +
                    " before any thread has seen the end of the phase before",
                where);
  }
  block.order.publish(block.current->number, arrived_at(m, address));
  --m.pending;
  end_phase_if_complete(m);
}

bool is_over(const Mbarrier& m, unsigned parity) {
  return parity != (m.phase & 1);
}

void see(Mbarrier& m, Scope scope) {
  Block& block = *running_block;
  m.seen = true;
  m.copied_by = 0;
  block.order.acquire(block.current->number, m.completed);
  if (scope == Scope::kCluster) {
    block.order.acquire(block.current->number, m.completed_of_others);
  }
}

void require_parity(unsigned parity, const Where& where) {
  if (parity > 1) {
    fail_here(Kind::kBadInstruction,
              "waits for the phase of parity " + std::to_string(parity) + ": there are 0 and 1",
              where);
  }
}

}  // namespace

void init_mbarrier(void* mbarrier, unsigned arrivals, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const std::uintptr_t address = address_of(mbarrier);
  const InSimulator scope;
  require_place(address, where);
  require_own(address, where);
  if (arrivals == 0 || arrivals > kMostArrivals) {
    fail_here(Kind::kMbarrier,
              "initialises an mbarrier for " + std::to_string(arrivals) + " arrivals: 1 to " +
                  std::to_string(kMostArrivals) + " can be",
              where);
  }
  const auto found = running_block->mbarriers.find(address);
  if (found != running_block->mbarriers.end()) {
    fail_here(Kind::kMbarrier,
              "initialises " + name_of(address) + ", which is in use (" + state_of(found->second) +
                  ") and was not invalidated",
              where);
  }
  observe_mbarrier(address, 8, Touch::kWrite, true, code);
  Mbarrier& m = running_block->mbarriers[address];
  m.expected = m.pending = arrivals;
  m.initialized_by = running_block->current->number;
}

void invalidate_mbarrier(void* mbarrier, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const std::uintptr_t address = address_of(mbarrier);
  const InSimulator scope;
  const Mbarrier& m = find(address, "invalidates", where);
  if (m.bytes != 0) {
    fail_here(
        Kind::kMbarrier,
        "invalidates " + name_of(address) + ", which copies still signal (" + state_of(m) + ")",
        where);
  }
  observe_mbarrier(address, 8, Touch::kWrite, true, code);
  running_block->mbarriers.erase(address);
}

void fence_mbarrier_init() {
  const InSimulator scope;
  for (auto& [address, m] : running_block->mbarriers) {
    if (m.initialized_by == running_block->current->number) m.fenced = true;
  }
}

void expect_bytes(void* mbarrier, unsigned bytes, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  Mbarrier& m = find(address_of(mbarrier), "expects bytes at", where);
  observe_mbarrier(address_of(mbarrier), 8, Touch::kAtomic, true, code);
  add_bytes(m, address_of(mbarrier), bytes, where);
}

void arrive_at_mbarrier(void* mbarrier, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  Mbarrier& m = find(address_of(mbarrier), "arrives at", where);
  observe_mbarrier(address_of(mbarrier), 8, Touch::kAtomic, true, code);
  arrive(m, address_of(mbarrier), where);
}

void arrive_at_mbarrier_of(unsigned rank, const void* mbarrier, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  const std::uintptr_t address = map_shared(address_of(mbarrier), rank, where);
  Mbarrier& m = find_any(address, "arrives at", where);
  observe_mbarrier(address, 8, Touch::kAtomic, true, code);
  arrive(m, address, where);
}

void arrive_expecting_bytes(void* mbarrier, unsigned bytes, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  Mbarrier& m = find(address_of(mbarrier), "arrives at", where);
  observe_mbarrier(address_of(mbarrier), 8, Touch::kAtomic, true, code);
  add_bytes(m, address_of(mbarrier), bytes, where);
  arrive(m, address_of(mbarrier), where);
}

bool try_wait_for_mbarrier(const void* mbarrier, unsigned parity, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator scope;
  require_parity(parity, where);
  const std::uintptr_t address = address_of(mbarrier);
  find(address, "waits at", where);
  observe_mbarrier(address, 8, Touch::kAtomic, true, code);
  if (!is_over(find(address, "waits at", where), parity)) yield(where);
  Mbarrier& m = find(address, "waits at", where);
  if (!is_over(m, parity)) return false;
  see(m, Scope::kBlock);
  return true;
}

void wait_for_mbarrier(const void* mbarrier, unsigned parity, const Where& where, Scope scope) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const InSimulator in_simulator;
  require_parity(parity, where);
  const std::uintptr_t address = address_of(mbarrier);
  find(address, "waits at", where);
  observe_mbarrier(address, 8, Touch::kAtomic, true, code);
  Block& block = *running_block;
  const auto over = [&] {
    const auto found = block.mbarriers.find(address);
    return found == block.mbarriers.end() || is_over(found->second, parity);
  };
  // Another thread may end the next phase too, and the one after, before this one goes on: as on
  // the device, it then waits for ever.
  wait_until(
      over,
      [&] {
        const auto found = block.mbarriers.find(address);
        return "the phase of parity " + std::to_string(parity) + " at " + name_of(address) +
               (found == block.mbarriers.end() ? "" : ": " + state_of(found->second));
      },
      where);
  see(find(address, "waits at", where), scope);
}

void require_mbarrier(const void* mbarrier, std::uintptr_t code, const Where& where) {
  const InSimulator scope;
  const Mbarrier& m = find_any(address_of(mbarrier), "issues a copy that signals", where);
  observe_mbarrier(address_of(mbarrier), 8, Touch::kAtomic, true, code);
  if (!m.fenced) {
    report_here(Kind::kMbarrier,
                "issues a copy that signals " + name_of(address_of(mbarrier)) +
                    ", whose initialisation no fence.mbarrier_init or fence.proxy.async of the "
                    "same thread follows",
                where);
  }
}

void complete_bytes(const Asynchronous& copy, std::uintptr_t mbarrier, unsigned bytes) {
  std::map<std::uintptr_t, Mbarrier>& mbarriers = owner_of(mbarrier).mbarriers;
  const auto found = mbarriers.find(mbarrier);
  if (found == mbarriers.end()) {
    report_at_code(Kind::kMbarrier,
                   "issued " + std::string(copy.name) + " that signals " + name_of(mbarrier) +
                       ", which was invalidated meanwhile",
                   copy.code);
    return;
  }
  Mbarrier& m = found->second;
  m.bytes -= bytes;
  if (m.bytes < -kMostBytes) {
    report_at_code(Kind::kMbarrier,
                   "issued " + std::string(copy.name) + " that brings more bytes to " +
                       name_of(mbarrier) + " than it expects (" + state_of(m) + ")",
                   copy.code);
    m.bytes = 0;
  }
  BlockOrder& order = running_block->order;
  // Any wait learns of another block's copy, but only one of the cluster's scope what was before
  // it.
  if (&owner_of(mbarrier) != running_block) order.publish_alone(copy.number, m.arrived);
  order.publish(copy.number, arrived_at(m, mbarrier));
  m.copied_by = copy.code;
  end_phase_if_complete(m);
}

}  // namespace simt
