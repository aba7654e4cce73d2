#include "tests/support/simt/stacks.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>

#include "tests/support/simt/block.h"
#include "tests/support/simt/memory.h"

namespace simt {
namespace {

constexpr std::size_t kStackBytes = 256 << 10, kGuardPage = 4096;
// Stacks end at different offsets in their pages; otherwise their hot parts would compete for a few
// sets of the cache.
constexpr std::size_t kStackStep = 17 * 64, kStackSteps = 61;

// Where the stacks of all threads of a block begin, each with its guard page.
std::uintptr_t stacks_of(unsigned window) {
  static std::uintptr_t begin[kMostResident];
  if (begin[window] == 0) {
    void* data = mmap(nullptr, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) std::abort();
    for (unsigned i = 0; i < kMaxThreads; ++i) {
      mprotect(static_cast<char*>(data) + i * kStackBytes, kGuardPage, PROT_NONE);
    }
    begin[window] = reinterpret_cast<std::uintptr_t>(data);
  }
  return begin[window];
}

}  // namespace

Stack stack_of(unsigned window, unsigned thread) {
  const std::uintptr_t begin = stacks_of(window) + thread * kStackBytes;
  return {begin + kGuardPage, begin + kStackBytes - thread % kStackSteps * kStackStep};
}

}  // namespace simt
