#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "tests/support/simt/device.h"
#include "tests/support/simt/race.h"

namespace simt {

// One reserved range of addresses holds the shared memory of the blocks that are resident, a window
// for each, then device memory, then pinned host memory. Beside it lie, at the same offsets, a byte
// of state for each byte and a Word of accesses for each four; 16 bytes that are accessed as a
// whole have one until an access takes a part of them. Addresses of freed memory are not used
// again.
constexpr unsigned kMostResident = 16;
constexpr std::size_t kSharedWindow = std::size_t{256} << 10;
constexpr std::size_t kSharedBytes = kMostResident * kSharedWindow;
constexpr std::size_t kDeviceBytes = std::size_t{32} << 30;
constexpr std::size_t kPinnedBytes = std::size_t{8} << 30;
constexpr std::size_t kArenaBytes = kSharedBytes + kDeviceBytes + kPinnedBytes;
constexpr std::size_t kTotalMemory = std::size_t{2} << 30;  // what the device says it has

/// Bits of a byte's state.
constexpr std::uint8_t kAllocated = 1, kWritten = 2;

/// What fresh memory holds: NaN as a float, -1 as an integer.
constexpr int kPoison = 0xFF;

struct Allocation {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
  std::uint64_t number = 0;                 // from 1, in the order of the program
  int device = 0;                           // unless it is pinned
  std::uint32_t made_by = 0, freed_by = 0;  // operations, or 0
  bool pinned = false, stream_ordered = false, free_queued = false;
  std::map<std::uint32_t, std::uint32_t> last_use;  // stream -> operation

  std::uintptr_t end() const { return begin + bytes; }
};

class Memory {
 public:
  static Memory& instance() {
    static Memory memory;
    return memory;
  }

  bool contains(std::uintptr_t address) const { return address - base_ < kArenaBytes; }
  bool is_shared(std::uintptr_t address) const { return address - base_ < kSharedBytes; }
  bool is_device(std::uintptr_t address) const {
    return address - base_ - kSharedBytes < kDeviceBytes;
  }
  bool is_pinned(std::uintptr_t address) const {
    return address - base_ - kSharedBytes - kDeviceBytes < kPinnedBytes;
  }
  std::uintptr_t shared(unsigned window) const { return base_ + window * kSharedWindow; }
  std::uint8_t* state(std::uintptr_t address) { return state_ + (address - base_); }
  /// Whether each word of these 16 bytes has accesses of its own; if not, the first word's count
  /// for all.
  bool is_split(std::uintptr_t address) const { return split_[(address - base_) / 16]; }
  void split(std::uintptr_t address);
  /// Words that have the same accesses share them again.
  void unite_if_alike(std::uintptr_t address);
  Word& word(std::uintptr_t address) {
    const std::size_t i = (address - base_) / 4;
    return i % 4 == 0 ? first_words_[i / 4] : other_words_[i / 4][i % 4 - 1];
  }
  /// No accesses are kept of shared memory from `begin`, which is a window's, on.
  void forget_accesses(std::uintptr_t begin, std::size_t bytes);

  /// Null when the device has no room left.
  Allocation* allocate(std::size_t bytes, int device);
  Allocation* allocate_pinned(std::size_t bytes);
  /// The allocation that holds an address, whether freed or not, or the last one before it.
  Allocation* find(std::uintptr_t address);
  /// Nothing may touch it any more.
  void retire(Allocation& allocation);
  /// Device memory before the first allocation that lives stays closed from now on: opening takes
  /// time for every page that was ever touched.
  void leave_freed();
  /// The allocation is its device's pool's (cudaMallocAsync), which keeps what it frees.
  void move_to_pool(Allocation& allocation);
  /// In bytes. Those of the pool live, too, while they are used.
  struct Use {
    std::size_t live = 0, pool_used = 0, pool_reserved = 0;
  };
  const Use& use(int device) const { return use_[device]; }
  const std::map<std::uintptr_t, Allocation>& allocations() const { return allocations_; }

  /// "byte 40 of allocation 3 (32 bytes)"
  std::string describe(std::uintptr_t address);

  /// Device memory can be touched while at least one of these lives.
  void open();
  void close();
  /// Host code may not touch pinned memory that a copy still uses.
  void protect_pinned(std::uintptr_t begin, std::size_t bytes, bool reads_allowed);
  void unprotect_pinned(std::uintptr_t begin, std::size_t bytes);

 private:
  Memory();
  void protect(int protection);
  /// Gives back whole pages, and what is kept of their accesses.
  void give_back(std::uintptr_t begin, std::uintptr_t end);
  Allocation& add(std::uintptr_t begin, std::size_t bytes);

  std::uintptr_t base_;
  std::uint8_t* state_;
  std::uint8_t* split_;               // [16 bytes]
  Word* first_words_;                 // [16 bytes]
  std::array<Word, 3>* other_words_;  // [16 bytes]
  std::uintptr_t device_first_;       // the page where memory that can be opened begins
  std::uintptr_t device_next_, pinned_next_;
  std::map<std::uintptr_t, Allocation> allocations_;
  std::uint64_t made_ = 0;
  std::array<Use, kMostDevices> use_;
  int open_ = 0;
};

/// Opens device memory for a scope.
class DeviceAccess {
 public:
  DeviceAccess() { Memory::instance().open(); }
  ~DeviceAccess() { Memory::instance().close(); }
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace simt
