#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include "kernels/cuda/mbarrier.cuh"

// Bulk copies, by the tensor memory accelerator (PTX ISA 9.1, 9.7.9.25.4 and .5): one thread issues
// them. tests/support/simt has a header of the same path for the simulated device.
//
// What threads wrote to the source, a copy sees behind fence_async_proxy() of the writers and a
// barrier. What a copy brings to shared memory, threads see behind mbarrier_wait().
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
namespace serrate {

/// cp.async.bulk from global to shared memory; both addresses and the size are multiples of 16
/// bytes. The mbarrier counts the bytes.
__device__ inline void load_bulk(void* shared, const void* global, unsigned bytes,
                                 Mbarrier* mbarrier) {
  asm volatile(
      "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(mbarrier))
      : "memory");
}

/// cp.async.bulk from shared to global memory, as part of the group that the thread commits next.
__device__ inline void store_bulk(void* global, const void* shared, unsigned bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
               "r"(shared_address(shared)), "r"(bytes)
               : "memory");
}
/// cp.reduce.async.bulk .add: each element is an atomic addition of its own.
__device__ inline void add_bulk(float* global, const float* shared, unsigned bytes) {
  asm volatile(
      "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
      "r"(shared_address(shared)), "r"(bytes)
      : "memory");
}

/// The stores of the thread since the last commit are a group.
__device__ inline void bulk_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
/// Waits until all but the kPending youngest groups of the thread have read shared memory. A thread
/// that stored does so before it exits, at the least.
template <int kPending>
__device__ void bulk_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}
/// Waits until they are done, and the thread sees what they wrote.
template <int kPending>
__device__ void bulk_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kPending) : "memory");
}

// Boxes of a tensor. `coordinates` are of the first element of the box, the innermost dimension
// first; the map is a `const __grid_constant__` parameter of the kernel (kernels/cuda/tensor_map.h
// makes it). The box in shared memory is aligned to 128 bytes, to 1024 when it is swizzled.

/// cp.async.bulk.tensor from global to shared memory. What is outside the tensor becomes zero. The
/// mbarrier counts the bytes of the whole box.
template <int kRank>
__device__ void load_box(void* shared, const CUtensorMap* map, const int (&coordinates)[kRank],
                         Mbarrier* mbarrier) {
  static_assert(2 <= kRank && kRank <= 5);
  const std::uint32_t to = shared_address(shared), signal = shared_address(mbarrier);
  if constexpr (kRank == 2) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
        "l"(map), "r"(signal), "r"(coordinates[0]), "r"(coordinates[1])
        : "memory");
  } else if constexpr (kRank == 3) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cta.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
        "l"(map), "r"(signal), "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2])
        : "memory");
  } else if constexpr (kRank == 4) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cta.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
        "l"(map), "r"(signal), "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2]),
        "r"(coordinates[3])
        : "memory");
  } else {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cta.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
        "l"(map), "r"(signal), "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2]),
        "r"(coordinates[3]), "r"(coordinates[4])
        : "memory");
  }
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// The same with .multicast::cluster, read once, for all blocks of the cluster whose bits, by
/// cluster_rank(), are in `blocks`: each gets it at this address, and each one's own mbarrier
/// counts the bytes, which each expects.
__device__ inline void load_box_to(unsigned blocks, void* shared, const CUtensorMap* map,
                                   const int (&coordinates)[5], Mbarrier* mbarrier) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(
          shared_address(shared)),
      "l"(map), "r"(shared_address(mbarrier)), "r"(coordinates[0]), "r"(coordinates[1]),
      "r"(coordinates[2]), "r"(coordinates[3]), "r"(coordinates[4]),
      "h"(static_cast<std::uint16_t>(blocks))
      : "memory");
}
#endif

#define SERRATE_STORE_BOX(instruction)                                                      \
  static_assert(2 <= kRank && kRank <= 5);                                                  \
  const std::uint32_t from = shared_address(shared);                                        \
  if constexpr (kRank == 2) {                                                               \
    asm volatile(instruction(2) " [%0, {%2, %3}], [%1];" ::"l"(map), "r"(from),             \
                 "r"(coordinates[0]), "r"(coordinates[1])                                   \
                 : "memory");                                                               \
  } else if constexpr (kRank == 3) {                                                        \
    asm volatile(instruction(3) " [%0, {%2, %3, %4}], [%1];" ::"l"(map), "r"(from),         \
                 "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2])              \
                 : "memory");                                                               \
  } else if constexpr (kRank == 4) {                                                        \
    asm volatile(instruction(4) " [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map), "r"(from),     \
                 "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2]),             \
                 "r"(coordinates[3])                                                        \
                 : "memory");                                                               \
  } else {                                                                                  \
    asm volatile(instruction(5) " [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(map), "r"(from), \
                 "r"(coordinates[0]), "r"(coordinates[1]), "r"(coordinates[2]),             \
                 "r"(coordinates[3]), "r"(coordinates[4])                                   \
                 : "memory");                                                               \
  }
#define SERRATE_STORE(rank) "cp.async.bulk.tensor." #rank "d.global.shared::cta.tile.bulk_group"
#define SERRATE_ADD(rank) \
  "cp.reduce.async.bulk.tensor." #rank "d.global.shared::cta.add.tile.bulk_group"

/// cp.async.bulk.tensor from shared to global memory, as part of the group that the thread commits
/// next. What is outside the tensor is not written; no coordinate is negative.
template <int kRank>
__device__ void store_box(const CUtensorMap* map, const int (&coordinates)[kRank],
                          const void* shared) {
  SERRATE_STORE_BOX(SERRATE_STORE)
}
/// cp.reduce.async.bulk.tensor .add: each element is an atomic addition of its own.
template <int kRank>
__device__ void add_box(const CUtensorMap* map, const int (&coordinates)[kRank],
                        const void* shared){SERRATE_STORE_BOX(SERRATE_ADD)}
#undef SERRATE_ADD
#undef SERRATE_STORE
#undef SERRATE_STORE_BOX

/// prefetch.tensormap (9.7.9.16): a hint.
__device__ inline void prefetch_tensor_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

}  // namespace serrate
#endif
