#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/mbarrier.cuh"

// Clusters: blocks that run at the same time and reach each other's shared memory (PTX ISA 9.1,
// 5.1.6 and 9.7.13.3). launch_clusters() makes them of blocks that follow each other in x.
// tests/support/simt has a header of the same path for the simulated device.
//
// A block reaches another one from when it knows that the other has begun, until that one can know
// that nobody reaches it any more and ends: a kernel's first and last use of its neighbours lie
// between two barriers of the cluster. Nothing but the functions below, load_box_to() and plain
// loads, stores and atomics by map_shared() takes shared memory of another block.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
namespace serrate {

/// %cluster_ctarank: of this block, from 0.
__device__ inline unsigned cluster_rank() {
  std::uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// %cluster_nctarank: how many blocks there are.
__device__ inline unsigned cluster_size() {
  std::uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

/// barrier.cluster.arrive (9.7.13.3): releases what the thread did. Each thread of the cluster that
/// has not exited calls it, and cluster_wait() before it does so again.
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
}
/// barrier.cluster.wait: until all have arrived; acquires what they did before.
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
__device__ inline void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

/// mapa (9.7.9.23): where block `rank` of the cluster has what lies at `shared` in this one's
/// dynamic shared memory.
template <typename T>
__device__ T* map_shared(T* shared, unsigned rank) {
  std::uint64_t mapped;
  asm("mapa.u64 %0, %1, %2;" : "=l"(mapped) : "l"(shared), "r"(rank));
  return reinterpret_cast<T*>(mapped);
}
/// The same as PTX counts addresses.
__device__ inline std::uint32_t mapped_shared_address(const void* shared, unsigned rank) {
  std::uint32_t mapped;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(mapped)
      : "r"(shared_address(shared)), "r"(rank));
  return mapped;
}

/// mbarrier.arrive at the mbarrier that block `rank` has at this address: releases what the thread
/// did to those who wait by mbarrier_wait_cluster().
__device__ inline void mbarrier_arrive_at(const Mbarrier* mbarrier, unsigned rank) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                   mapped_shared_address(mbarrier, rank))
               : "memory");
}
/// mbarrier_wait() where threads of other blocks arrive: acquires what they released too.
__device__ inline void mbarrier_wait_cluster(const Mbarrier* mbarrier, unsigned parity) {
  std::uint32_t over;
  do {
    asm volatile(
        "{\n"
        ".reg .pred over;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%1], %2;\n"
        "selp.u32 %0, 1, 0, over;\n"
        "}"
        : "=r"(over)
        : "r"(shared_address(mbarrier)), "r"(parity)
        : "memory");
  } while (over == 0);
}

/// cp.async.bulk from this block's shared memory to block `rank`'s (9.7.9.25.4.1): to what that one
/// has at the address `to`. Its mbarrier counts the bytes, which it expects and mbarrier_wait()
/// waits for. Addresses and size are multiples of 16 bytes.
__device__ inline void copy_bulk_to(unsigned rank, void* to, const void* shared, unsigned bytes,
                                    Mbarrier* mbarrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, "
      "[%3];" ::"r"(mapped_shared_address(to, rank)),
      "r"(shared_address(shared)), "r"(bytes), "r"(mapped_shared_address(mbarrier, rank))
      : "memory");
}
/// st.async (9.7.9): a store to what block `rank` has at the address `to`, whose mbarrier counts
/// the bytes, as for copy_bulk_to(). Unlike mbarrier_arrive_at() it waits for nothing that the
/// thread wrote.
__device__ inline void store_async(unsigned rank, float4* to, const float4& value,
                                   Mbarrier* mbarrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%2, %3, %4, %5}, "
      "[%1];" ::"r"(mapped_shared_address(to, rank)),
      "r"(mapped_shared_address(mbarrier, rank)), "f"(value.x), "f"(value.y), "f"(value.z),
      "f"(value.w)
      : "memory");
}

}  // namespace serrate
#endif
