// Kernels are compiled with -fsanitize=thread, which makes the compiler call one of these functions
// before every load and store; the program is linked without libtsan, so they are ours.
#include "tests/support/simt/block.h"
#include "tests/support/simt/observe.h"

namespace {

using simt::Touch;

inline void on_access(const void* address, std::size_t bytes, Touch touch, bool aligned,
                      const void* code) {
  // Host code in the same file faults where it touches device memory.
  const simt::Block* block = simt::running_block;
  if (!block || !block->current) return;
  const simt::Thread& thread = *block->current;
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  // Most accesses are of the thread's own variables.
  const bool own = at >= thread.stack_begin && at < thread.stack_end && !thread.products;
  if (own || thread.in_simulator) return;
  simt::observe(at, bytes, touch, aligned, reinterpret_cast<std::uintptr_t>(code));
}

}  // namespace

// A loop that waits for a volatile flag lets others run.
#define SIMT_VOLATILE_HOOK(bytes)                                                 \
  void __tsan_volatile_read##bytes(void* address) {                               \
    on_access(address, bytes, Touch::kRead, true, __builtin_return_address(0));   \
    if (simt::in_kernel() && simt::schedule()() % 4 == 0) {                       \
      simt::yield(simt::Where::current(),                                         \
                  reinterpret_cast<std::uintptr_t>(__builtin_return_address(0))); \
    }                                                                             \
  }
#define SIMT_HOOK(name, bytes, touch, aligned)                                     \
  void __tsan_##name(void* address) {                                              \
    on_access(address, bytes, Touch::touch, aligned, __builtin_return_address(0)); \
  }
#define SIMT_HOOKS(bytes)                      \
  SIMT_HOOK(read##bytes, bytes, kRead, true)   \
  SIMT_HOOK(write##bytes, bytes, kWrite, true) \
  SIMT_VOLATILE_HOOK(bytes)                    \
  SIMT_HOOK(volatile_write##bytes, bytes, kWrite, true)

// std::atomic and the reference counts of std::shared_ptr.
#define SIMT_ATOMIC_HOOK(bits, type, name)                                     \
  type __tsan_atomic##bits##_##name(volatile type* address, type value, int) { \
    on_access(const_cast<type*>(address), sizeof(type), Touch::kAtomic, true,  \
              __builtin_return_address(0));                                    \
    return __atomic_##name(address, value, __ATOMIC_SEQ_CST);                  \
  }
#define SIMT_ATOMIC_HOOKS(bits, type)                                                       \
  SIMT_ATOMIC_HOOK(bits, type, fetch_add)                                                   \
  SIMT_ATOMIC_HOOK(bits, type, fetch_sub)                                                   \
  SIMT_ATOMIC_HOOK(bits, type, fetch_and)                                                   \
  SIMT_ATOMIC_HOOK(bits, type, fetch_or)                                                    \
  SIMT_ATOMIC_HOOK(bits, type, fetch_xor)                                                   \
  type __tsan_atomic##bits##_load(const volatile type* address, int) {                      \
    on_access(const_cast<type*>(address), sizeof(type), Touch::kAtomic, true,               \
              __builtin_return_address(0));                                                 \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                      \
  }                                                                                         \
  void __tsan_atomic##bits##_store(volatile type* address, type value, int) {               \
    on_access(const_cast<type*>(address), sizeof(type), Touch::kAtomic, true,               \
              __builtin_return_address(0));                                                 \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                     \
  }                                                                                         \
  type __tsan_atomic##bits##_exchange(volatile type* address, type value, int) {            \
    on_access(const_cast<type*>(address), sizeof(type), Touch::kAtomic, true,               \
              __builtin_return_address(0));                                                 \
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                           \
  }                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* address, type* expected, \
                                                    type value, int, int) {                 \
    on_access(const_cast<type*>(address), sizeof(type), Touch::kAtomic, true,               \
              __builtin_return_address(0));                                                 \
    return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST,   \
                                       __ATOMIC_SEQ_CST);                                   \
  }                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* address, type* expected,   \
                                                  type value, int a, int b) {               \
    return __tsan_atomic##bits##_compare_exchange_strong(address, expected, value, a, b);   \
  }

extern "C" {
SIMT_ATOMIC_HOOKS(8, std::uint8_t)
SIMT_ATOMIC_HOOKS(16, std::uint16_t)
SIMT_ATOMIC_HOOKS(32, std::uint32_t)
SIMT_ATOMIC_HOOKS(64, std::uint64_t)
void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {}
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)
SIMT_HOOK(unaligned_read2, 2, kRead, false)
SIMT_HOOK(unaligned_read4, 4, kRead, false)
SIMT_HOOK(unaligned_read8, 8, kRead, false)
SIMT_HOOK(unaligned_read16, 16, kRead, false)
SIMT_HOOK(unaligned_write2, 2, kWrite, false)
SIMT_HOOK(unaligned_write4, 4, kWrite, false)
SIMT_HOOK(unaligned_write8, 8, kWrite, false)
SIMT_HOOK(unaligned_write16, 16, kWrite, false)
void __tsan_read_range(void* address, std::size_t bytes) {
  on_access(address, bytes, Touch::kRead, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, std::size_t bytes) {
  on_access(address, bytes, Touch::kWrite, false, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
}
