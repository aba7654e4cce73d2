#pragma once

// The simulated device's form of kernels/cuda/mbarrier.cuh, which says what they do.
#include <cuda_runtime.h>

#include "tests/support/simt/mbarrier.h"

namespace serrate {

#define SIMT_HERE simt::Where where = simt::Where::current()

struct alignas(8) Mbarrier {
  std::uint64_t state;
};

__forceinline__ std::uint32_t shared_address(const void* shared) {
  return simt::shared_memory_address(shared);
}

__forceinline__ void mbarrier_init(Mbarrier* mbarrier, unsigned arrivals, SIMT_HERE) {
  simt::init_mbarrier(mbarrier, arrivals, where);
}
__forceinline__ void mbarrier_invalidate(Mbarrier* mbarrier, SIMT_HERE) {
  simt::invalidate_mbarrier(mbarrier, where);
}
__forceinline__ void fence_mbarrier_init() {
  simt::fence_mbarrier_init();
}
__forceinline__ void mbarrier_arrive(Mbarrier* mbarrier, SIMT_HERE) {
  simt::arrive_at_mbarrier(mbarrier, where);
}
__forceinline__ void mbarrier_expect_bytes(Mbarrier* mbarrier, unsigned bytes, SIMT_HERE) {
  simt::expect_bytes(mbarrier, bytes, where);
}
__forceinline__ void mbarrier_arrive_expecting(Mbarrier* mbarrier, unsigned bytes, SIMT_HERE) {
  simt::arrive_expecting_bytes(mbarrier, bytes, where);
}
__forceinline__ bool mbarrier_try_wait(const Mbarrier* mbarrier, unsigned parity, SIMT_HERE) {
  return simt::try_wait_for_mbarrier(mbarrier, parity, where);
}
__forceinline__ void mbarrier_wait(const Mbarrier* mbarrier, unsigned parity, SIMT_HERE) {
  simt::wait_for_mbarrier(mbarrier, parity, where);
}
__forceinline__ void fence_async_proxy_shared() {
  simt::fence_async_proxy(simt::ProxyFence::kShared);
}
__forceinline__ void fence_async_proxy() {
  simt::fence_async_proxy(simt::ProxyFence::kAll);
}

#undef SIMT_HERE

}  // namespace serrate
