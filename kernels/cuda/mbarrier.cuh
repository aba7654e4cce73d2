#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// mbarriers: barriers in shared memory that count arrivals of threads and bytes of copies (PTX ISA
// 9.1, 9.7.13.15). tests/support/simt has a header of the same path for the simulated device.
//
// A barrier goes through phases, from 0 on. A phase is over when as many threads have arrived as
// the barrier was initialised for, and all bytes that were announced have come; then the next one
// begins. Who waits names the parity of the phase, 0 for the first one, and may lag by one phase
// at most. Waiting for parity 1 on a fresh barrier returns at once.
namespace serrate {

/// The address of shared memory as PTX counts it.
__device__ inline std::uint32_t shared_address(const void* shared) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

/// In shared memory. Only the functions below touch it while it is in use.
struct alignas(8) Mbarrier {
  std::uint64_t state;
};

/// mbarrier.init. Other threads use the barrier behind a __syncthreads, copies behind a
/// fence_mbarrier_init of this thread too.
__device__ inline void mbarrier_init(Mbarrier* mbarrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(mbarrier)),
               "r"(arrivals)
               : "memory");
}
/// mbarrier.inval: before the memory is used for something else, or is initialised again.
__device__ inline void mbarrier_invalidate(Mbarrier* mbarrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(mbarrier)) : "memory");
}
/// fence.mbarrier_init (9.7.13.4).
__device__ inline void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// mbarrier.arrive: releases what the thread did.
__device__ inline void mbarrier_arrive(Mbarrier* mbarrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(mbarrier))
               : "memory");
}
/// mbarrier.expect_tx: the phase is not over before that many more bytes have come.
__device__ inline void mbarrier_expect_bytes(Mbarrier* mbarrier, unsigned bytes) {
  asm volatile(
      "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(mbarrier)),
      "r"(bytes)
      : "memory");
}
/// Both at once, the bytes first.
__device__ inline void mbarrier_arrive_expecting(Mbarrier* mbarrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(mbarrier)),
      "r"(bytes)
      : "memory");
}

/// mbarrier.try_wait.parity: whether the phase is over; may take a while to say no.
__device__ inline bool mbarrier_try_wait(const Mbarrier* mbarrier, unsigned parity) {
  std::uint32_t over;
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
      "selp.u32 %0, 1, 0, over;\n"
      "}"
      : "=r"(over)
      : "r"(shared_address(mbarrier)), "r"(parity)
      : "memory");
  return over != 0;
}
/// Waits until the phase of that parity is over, and acquires what its arrivals released and its
/// copies brought.
__device__ inline void mbarrier_wait(const Mbarrier* mbarrier, unsigned parity) {
  while (!mbarrier_try_wait(mbarrier, parity)) {
  }
}

/// fence.proxy.async (9.7.13.4): bulk copies and wgmma behind the next barrier see what this thread
/// wrote to shared memory.
__device__ inline void fence_async_proxy_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/// The same of shared and global memory.
__device__ inline void fence_async_proxy() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

#endif

}  // namespace serrate
