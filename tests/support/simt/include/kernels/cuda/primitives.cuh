#pragma once

// The simulated device's form of kernels/cuda/primitives.cuh, which says what they do.
#include <cuda_runtime.h>

#include "tests/support/simt/instructions.h"
#include "tests/support/simt/number.h"
#include "tests/support/simt/small_floats.h"

namespace serrate {

#define SIMT_HERE simt::Where where = simt::Where::current()

template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(simt::dynamic_shared_memory());
}

inline void named_barrier_sync(unsigned barrier, unsigned threads, SIMT_HERE) {
  simt::sync_named(barrier, threads, where);
}
inline void named_barrier_arrive(unsigned barrier, unsigned threads, SIMT_HERE) {
  simt::arrive_named(barrier, threads, where);
}

template <int kMatrices>
__forceinline__ void load_matrices(std::uint32_t (&fragments)[kMatrices], const void* row,
                                   SIMT_HERE) {
  simt::load_matrices({fragments, kMatrices, false}, row, where);
}
template <int kMatrices>
__forceinline__ void load_matrices_transposed(std::uint32_t (&fragments)[kMatrices],
                                              const void* row, SIMT_HERE) {
  simt::load_matrices({fragments, kMatrices, true}, row, where);
}

inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2], SIMT_HERE) {
  simt::multiply_matrices(simt::MmaType::kBf16, d, a, b, where);
}
inline void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2], SIMT_HERE) {
  simt::multiply_matrices(simt::MmaType::kF16, d, a, b, where);
}
inline std::uint32_t round_to_tf32(float x) {
  return simt::round_to_tf32(x);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2], SIMT_HERE) {
  simt::multiply_matrices(simt::MmaType::kTf32, d, a, b, where);
}

#define SERRATE_HAS_E4M3 1
inline void mma_m16n8k32_e4m3(float (&d)[4], const std::uint32_t (&a)[4],
                              const std::uint32_t (&b)[2], SIMT_HERE) {
  simt::multiply_matrices(simt::MmaType::kE4m3, d, a, b, where);
}

inline std::uint16_t pack_e4m3(float low, float high) {
  return static_cast<std::uint16_t>(simt::to_e4m3(low) | simt::to_e4m3(high) << 8);
}
struct E4m3Pair {
  float low, high;
};
inline E4m3Pair unpack_e4m3(std::uint16_t packed) {
  return {static_cast<float>(simt::from_e4m3(static_cast<std::uint8_t>(packed))),
          static_cast<float>(simt::from_e4m3(static_cast<std::uint8_t>(packed >> 8)))};
}

__forceinline__ void copy_async(void* shared, const void* global, SIMT_HERE) {
  simt::copy_async(shared, global, where);
}
inline void copy_async_commit() {
  simt::commit_copies();
}
template <int kPending>
__forceinline__ void copy_async_wait() {
  simt::wait_for_copies(kPending);
}

#undef SIMT_HERE

}  // namespace serrate
