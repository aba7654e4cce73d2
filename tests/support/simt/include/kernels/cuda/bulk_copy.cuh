#pragma once

// The simulated device's form of kernels/cuda/bulk_copy.cuh, which says what they do.
#include <cuda.h>

#include "kernels/cuda/mbarrier.cuh"
#include "tests/support/simt/bulk_copy.h"

namespace serrate {

#define SIMT_HERE simt::Where where = simt::Where::current()

__forceinline__ void load_bulk(void* shared, const void* global, unsigned bytes, Mbarrier* mbarrier,
                               SIMT_HERE) {
  simt::load_bulk(shared, global, bytes, mbarrier, where);
}
__forceinline__ void store_bulk(void* global, const void* shared, unsigned bytes, SIMT_HERE) {
  simt::store_bulk(simt::BulkWrite::kStore, global, shared, bytes, where);
}
__forceinline__ void add_bulk(float* global, const float* shared, unsigned bytes, SIMT_HERE) {
  simt::store_bulk(simt::BulkWrite::kAdd, global, shared, bytes, where);
}
__forceinline__ void bulk_commit() {
  simt::commit_bulk();
}
template <int kPending>
__forceinline__ void bulk_wait_read() {
  simt::wait_for_bulk(simt::BulkWait::kRead, kPending);
}
template <int kPending>
__forceinline__ void bulk_wait() {
  simt::wait_for_bulk(simt::BulkWait::kDone, kPending);
}

template <int kRank>
__forceinline__ void load_box(void* shared, const CUtensorMap* map, const int (&coordinates)[kRank],
                              Mbarrier* mbarrier, SIMT_HERE) {
  static_assert(2 <= kRank && kRank <= 5);
  simt::load_box(shared, map, kRank, coordinates, mbarrier, where);
}
__forceinline__ void load_box_to(unsigned blocks, void* shared, const CUtensorMap* map,
                                 const int (&coordinates)[5], Mbarrier* mbarrier, SIMT_HERE) {
  simt::load_box_to(blocks, shared, map, 5, coordinates, mbarrier, where);
}
template <int kRank>
__forceinline__ void store_box(const CUtensorMap* map, const int (&coordinates)[kRank],
                               const void* shared, SIMT_HERE) {
  static_assert(2 <= kRank && kRank <= 5);
  simt::store_box(simt::BulkWrite::kStore, map, kRank, coordinates, shared, where);
}
template <int kRank>
__forceinline__ void add_box(const CUtensorMap* map, const int (&coordinates)[kRank],
                             const void* shared, SIMT_HERE) {
  static_assert(2 <= kRank && kRank <= 5);
  simt::store_box(simt::BulkWrite::kAdd, map, kRank, coordinates, shared, where);
}
inline void prefetch_tensor_map(const CUtensorMap*) {}

#undef SIMT_HERE

}  // namespace serrate
