#pragma once

// The simulated device's form of kernels/cuda/cluster.cuh, which says what they do.
#include <cuda_runtime.h>

#include "kernels/cuda/mbarrier.cuh"
#include "tests/support/simt/bulk_copy.h"
#include "tests/support/simt/cluster.h"

namespace serrate {

#define SIMT_HERE simt::Where where = simt::Where::current()

inline unsigned cluster_rank() {
  return simt::cluster_rank();
}
inline unsigned cluster_size() {
  return simt::cluster_size();
}
__forceinline__ void cluster_arrive(SIMT_HERE) {
  simt::arrive_at_cluster(where);
}
__forceinline__ void cluster_wait(SIMT_HERE) {
  simt::wait_for_cluster(where);
}
__forceinline__ void cluster_sync(SIMT_HERE) {
  simt::arrive_at_cluster(where);
  simt::wait_for_cluster(where);
}
template <typename T>
__forceinline__ T* map_shared(T* shared, unsigned rank, SIMT_HERE) {
  return reinterpret_cast<T*>(
      simt::map_shared(reinterpret_cast<std::uintptr_t>(shared), rank, where));
}
__forceinline__ void mbarrier_arrive_at(const Mbarrier* mbarrier, unsigned rank, SIMT_HERE) {
  simt::arrive_at_mbarrier_of(rank, mbarrier, where);
}
__forceinline__ void mbarrier_wait_cluster(const Mbarrier* mbarrier, unsigned parity, SIMT_HERE) {
  simt::wait_for_mbarrier(mbarrier, parity, where, simt::Scope::kCluster);
}
__forceinline__ void copy_bulk_to(unsigned rank, void* to, const void* shared, unsigned bytes,
                                  Mbarrier* mbarrier, SIMT_HERE) {
  simt::copy_bulk_to(rank, to, shared, bytes, mbarrier, where);
}
__forceinline__ void store_async(unsigned rank, float4* to, const float4& value, Mbarrier* mbarrier,
                                 SIMT_HERE) {
  simt::store_async(rank, to, &value, sizeof value, mbarrier, where);
}

#undef SIMT_HERE

}  // namespace serrate
