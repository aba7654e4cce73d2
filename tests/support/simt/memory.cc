#include "tests/support/simt/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/support/simt/source_line.h"

namespace simt {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kGuard = 512;  // between allocations; CUDA aligns them to 256 bytes

std::uintptr_t round_up(std::uintptr_t value, std::uintptr_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Pages are huge where the system has them: that makes them quick to find, to fill and to protect.
void* reserve(std::size_t bytes, int protection) {
  void* data = mmap(nullptr, bytes + kHugePage, protection,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    std::perror("simt: cannot reserve addresses for the simulated device");
    std::abort();
  }
  const std::uintptr_t begin = round_up(reinterpret_cast<std::uintptr_t>(data), kHugePage);
  madvise(reinterpret_cast<void*>(begin), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(begin);
}

// Host code touched memory that is not its own, or not yet: the end of the program, with a name.
void on_fault(int number, siginfo_t* info, void* context) {
  Memory& memory = Memory::instance();
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (!memory.contains(address)) {
    signal(number, SIG_DFL);
    return;  // the instruction runs again, and ends the program as it would have
  }
  const auto* machine = static_cast<ucontext_t*>(context);
  const SourceLine at =
      source_line(static_cast<std::uintptr_t>(machine->uc_mcontext.gregs[REG_RIP]));
  const bool writes = machine->uc_mcontext.gregs[REG_ERR] & 2;
  const Kind kind = memory.is_pinned(address) ? Kind::kPending : Kind::kDeviceMemory;
  std::fprintf(stderr, "simt: %s: host code %s %s in %s (%s)\n", to_string(kind),
               writes ? "writes" : "reads", memory.describe(address).c_str(), at.function.c_str(),
               at.chain.c_str());
  std::fflush(stderr);
  std::_Exit(70);
}

}  // namespace

Memory::Memory()
    : base_(reinterpret_cast<std::uintptr_t>(reserve(kArenaBytes, PROT_NONE))),
      state_(static_cast<std::uint8_t*>(reserve(kArenaBytes, PROT_READ | PROT_WRITE))),
      split_(static_cast<std::uint8_t*>(reserve(kArenaBytes / 16, PROT_READ | PROT_WRITE))),
      first_words_(
          static_cast<Word*>(reserve(kArenaBytes / 16 * sizeof(Word), PROT_READ | PROT_WRITE))),
      other_words_(static_cast<std::array<Word, 3>*>(
          reserve(kArenaBytes / 16 * sizeof(std::array<Word, 3>), PROT_READ | PROT_WRITE))),
      device_first_(base_ + kSharedBytes),
      device_next_(device_first_ + kGuard),
      pinned_next_(base_ + kSharedBytes + kDeviceBytes) {
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
}

Allocation& Memory::add(std::uintptr_t begin, std::size_t bytes) {
  const DeviceAccess access;
  std::memset(reinterpret_cast<void*>(begin), kPoison, bytes);
  std::memset(state(begin), kAllocated, bytes);
  Allocation& made = allocations_[begin];
  made.begin = begin;
  made.bytes = bytes;
  made.number = ++made_;
  return made;
}

Allocation* Memory::allocate(std::size_t bytes, int device) {
  if (bytes > kTotalMemory - use_[device].live) return nullptr;
  const std::uintptr_t begin = round_up(device_next_, 256);
  device_next_ = begin + bytes + kGuard;
  use_[device].live += bytes;
  Allocation& made = add(begin, bytes);
  made.device = device;
  return &made;
}

Allocation* Memory::allocate_pinned(std::size_t bytes) {
  const std::uintptr_t begin = round_up(pinned_next_, kPage);
  pinned_next_ = round_up(begin + bytes, kPage) + kPage;
  mprotect(reinterpret_cast<void*>(begin), round_up(bytes, kPage), PROT_READ | PROT_WRITE);
  Allocation& made = add(begin, bytes);
  std::memset(state(begin), kAllocated | kWritten, bytes);  // the host's writes are not seen
  made.pinned = true;
  return &made;
}

void Memory::move_to_pool(Allocation& allocation) {
  allocation.stream_ordered = true;
  Use& use = use_[allocation.device];
  use.pool_used += allocation.bytes;
  use.pool_reserved = std::max(use.pool_reserved, use.pool_used);
}

Allocation* Memory::find(std::uintptr_t address) {
  const auto after = allocations_.upper_bound(address);
  return after == allocations_.begin() ? nullptr : &std::prev(after)->second;
}

void Memory::retire(Allocation& allocation) {
  std::memset(state(allocation.begin), 0, allocation.bytes);
  if (allocation.pinned) {
    mprotect(reinterpret_cast<void*>(allocation.begin), round_up(allocation.bytes, kPage),
             PROT_NONE);
    return;
  }
  Use& use = use_[allocation.device];
  use.live -= allocation.bytes;
  if (allocation.stream_ordered) use.pool_used -= allocation.bytes;
  const DeviceAccess access;
  std::memset(reinterpret_cast<void*>(allocation.begin), kPoison, allocation.bytes);
  const std::uintptr_t begin = round_up(allocation.begin, kPage);
  const std::uintptr_t end = allocation.end() / kPage * kPage;
  if (begin < end) give_back(begin, end);
}

void Memory::give_back(std::uintptr_t begin, std::uintptr_t end) {
  const std::size_t first = (begin - base_) / 16, count = (end - begin) / 16;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  madvise(first_words_ + first, count * sizeof *first_words_, MADV_DONTNEED);
  madvise(other_words_ + first, count * sizeof *other_words_, MADV_DONTNEED);
}

void Memory::split(std::uintptr_t address) {
  const std::size_t i = (address - base_) / 16;
  other_words_[i].fill(first_words_[i]);
  split_[i] = 1;
}

void Memory::unite_if_alike(std::uintptr_t address) {
  const std::size_t i = (address - base_) / 16;
  const bool alike = std::all_of(
      other_words_[i].begin(), other_words_[i].end(),
      [&](const Word& word) { return std::memcmp(&word, &first_words_[i], sizeof word) == 0; });
  if (alike) split_[i] = 0;
}

void Memory::forget_accesses(std::uintptr_t begin, std::size_t bytes) {
  const std::size_t first = (begin - base_) / 16, count = (bytes + 15) / 16;
  std::memset(split_ + first, 0, count);
  std::memset(static_cast<void*>(first_words_ + first), 0, count * sizeof *first_words_);
}

void Memory::leave_freed() {
  const auto first = std::find_if(allocations_.lower_bound(device_first_), allocations_.end(),
                                  [](const auto& entry) { return !entry.second.freed_by; });
  const bool found = first != allocations_.end() && !first->second.pinned;
  const std::uintptr_t live = (found ? first->first : device_next_) / kHugePage * kHugePage;
  give_back(device_first_, live);
  device_first_ = live;
}

std::string Memory::describe(std::uintptr_t address) {
  if (is_shared(address)) {
    return "byte " + std::to_string((address - base_) % kSharedWindow) + " of shared memory";
  }
  const Allocation* a = find(address);
  if (!a) return "device memory that was never allocated";
  char text[160];
  std::snprintf(text, sizeof text, "byte %zu of %s allocation %zu (%zu bytes%s)",
                address - a->begin, a->pinned ? "pinned" : "device",
                static_cast<std::size_t>(a->number), a->bytes, a->freed_by ? ", freed" : "");
  return text;
}

void Memory::protect(int protection) {
  mprotect(reinterpret_cast<void*>(base_), kSharedBytes, protection);
  mprotect(reinterpret_cast<void*>(device_first_),
           round_up(device_next_, kHugePage) - device_first_, protection);
}

void Memory::open() {
  ++open_;
  protect(PROT_READ | PROT_WRITE);
}

void Memory::close() {
  if (--open_ == 0) protect(PROT_NONE);
}

void Memory::protect_pinned(std::uintptr_t begin, std::size_t bytes, bool reads_allowed) {
  // Pages that hold other bytes too stay open.
  const Allocation* a = find(begin);
  const std::uintptr_t from = begin == a->begin ? begin : round_up(begin, kPage);
  const std::uintptr_t to =
      begin + bytes == a->end() ? round_up(begin + bytes, kPage) : (begin + bytes) / kPage * kPage;
  if (from < to) {
    mprotect(reinterpret_cast<void*>(from), to - from, reads_allowed ? PROT_READ : PROT_NONE);
  }
}

void Memory::unprotect_pinned(std::uintptr_t begin, std::size_t bytes) {
  const Allocation* a = find(begin);
  if (a->freed_by) return;
  mprotect(reinterpret_cast<void*>(begin / kPage * kPage),
           round_up(begin + bytes, kPage) - begin / kPage * kPage, PROT_READ | PROT_WRITE);
}

}  // namespace simt
