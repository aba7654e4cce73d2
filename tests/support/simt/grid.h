#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <string>

#include "tests/support/simt/findings.h"

namespace simt {

struct Operation;

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMaxThreads = 1024;

/// A kernel launch. Every thread does call(arguments), which runs the kernel.
struct Launch {
  const void* kernel = nullptr;  // names it
  Dim grid, block;
  std::size_t shared_bytes = 0;
  const void* arguments = nullptr;  // kernels may read them, not write
  std::size_t argument_bytes = 0;
  void (*call)(const void* arguments) = nullptr;
  unsigned cluster_size = 1;    // blocks that follow each other in x
  bool cooperative = false;     // all blocks are resident
  bool may_touch_host = false;  // the simulated CUB's own kernels hold their scratch on the host
};

/// Runs all blocks, in seeded random order; their threads too, each until it has to wait. False
/// when a finding made going on senseless.
bool run_grid(const Launch& launch, const Operation& operation);

/// How many blocks of a grid live at once, from 1 (as at the start) to 16: a block that waits for
/// another one needs it to be resident.
void set_resident_blocks(unsigned blocks);
unsigned resident_blocks();

/// The indices of the thread that runs, set at every switch: what threadIdx and so on name.
struct Indices {
  Dim thread, block, block_dim, grid_dim;
};

/// Whether this host thread runs a kernel's code at the moment.
bool in_kernel();

using Where = std::source_location;

/// A finding about the kernel thread that runs; text says what it did.
void report_here(Kind kind, const std::string& text, const Where& where);
/// The same; the grid ends.
[[noreturn]] void fail_here(Kind kind, const std::string& text, const Where& where);

// What threads wait for. Each returns when the others are there too.

enum class BarrierVote { kNone, kCount, kAnd, kOr };
/// __syncthreads and its voting forms.
int sync_block(BarrierVote vote, int predicate, const Where& where);
/// bar.sync and bar.arrive of a named barrier: `threads` of the block, a multiple of 32.
void sync_named(unsigned barrier, unsigned threads, const Where& where);
void arrive_named(unsigned barrier, unsigned threads, const Where& where);

enum class WarpOperation {
  kSync,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kAll,
  kAny,
  kBallot,
  kMatchAny,
  kMatchAll,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
  kReduceAnd,
  kReduceOr,
  kReduceXor,
  kElect,
  kCollective,
};
const char* to_string(WarpOperation operation);

struct WarpArgument {
  std::uint64_t value = 0;
  int lane = 0;    // shuffles: source lane, delta or lane mask
  int width = 32;  // shuffles
  int bytes = 4;   // shuffles and matches: of the value
};
/// The result for the calling lane. Only kSync orders memory among the lanes.
std::uint64_t warp_operation(WarpOperation operation, std::uint32_t mask, WarpArgument argument,
                             const Where& where);

/// An operation of all lanes of a warp on data of their own: `all` is called once, when the last
/// lane is there, with what each lane passed.
void warp_collective(const char* name, void* mine, void (*all)(void* const lanes[kWarpSize]),
                     const Where& where);

std::uint32_t active_lanes();
unsigned lane();

/// Lets others run: in loops that wait for what another thread writes.
void yield(const Where& where, std::uintptr_t code = 0);
/// Stops the thread until `ready()`; `describe` says for what, should it never come.
void wait_until(const std::function<bool()>& ready, const std::function<std::string()>& describe,
                const Where& where);

// Memory order. A thread that publishes hands on all that it knows; who acquires knows it too.
void* publish_here(void* clock);  // joins into a clock made by it when null; freed with the grid
void acquire_here(const void* clock);
/// __threadfence and __threadfence_block.
void fence();
/// fence.proxy.async: what the thread wrote to that memory can be read by asynchronous operations.
enum class ProxyFence { kShared, kAll };
void fence_async_proxy(ProxyFence fence);
/// What an atomic access to an address orders, beside fences.
void atomic_order(std::uintptr_t address);

std::uintptr_t dynamic_shared_memory();
/// The address that PTX gives to shared memory: from 0 in the block's window.
std::uint32_t shared_memory_address(const void* shared);
std::uint64_t shared_memory_bytes();

}  // namespace simt

extern simt::Indices simt_indices;
