#pragma once

#include "kernels/cuda/mbarrier.cuh"

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
namespace serrate {

/// kSlots buffers in shared memory that threads or copies fill and others read, in turn: pass n has
/// slot n % kSlots. A reader waits for every pass; otherwise it could
/// mistake a later one for it.
template <int kSlots>
struct Ring {
  Mbarrier full[kSlots], empty[kSlots];

  /// By one thread: how many arrivals fill a slot, and how many say that it has been read.
  __device__ void init(unsigned filling, unsigned reading) {
    for (int i = 0; i < kSlots; ++i) {
      mbarrier_init(&full[i], filling);
      mbarrier_init(&empty[i], reading);
    }
  }
  /// Waits until the slot of pass n may be filled; who has filled it arrives at the result.
  __device__ Mbarrier* wait_empty(unsigned n) {
    mbarrier_wait(&empty[n % kSlots], (n / kSlots & 1) ^ 1);
    return &full[n % kSlots];
  }
  /// Waits until it has been filled.
  __device__ void wait_full(unsigned n) const { mbarrier_wait(&full[n % kSlots], n / kSlots & 1); }
  __device__ void arrive_empty(unsigned n) { mbarrier_arrive(&empty[n % kSlots]); }
};

}  // namespace serrate
#endif
