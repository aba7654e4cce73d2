#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// What kernels ask of the hardware beyond CUDA C++, by name. tests/support/simt has a header of the
// same path, which takes its place on the simulated device; tests/kernels/cuda/primitives_test.cu
// holds both to the PTX manual (sections of PTX ISA 9.1). What only Hopper has is in mbarrier.cuh,
// bulk_copy.cuh, cluster.cuh, warpgroup.cuh and wgmma.cuh.
//
// Fragments: g = lane / 4, q = lane % 4. An accumulator d of 16 x 8 holds
// (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1).
namespace serrate {

/// The dynamic shared memory of the block, aligned to 1024 bytes.
template <typename T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char serrate_dynamic_shared[];
  return reinterpret_cast<T*>(serrate_dynamic_shared);
}

/// bar.sync (9.7.13.1): waits until `threads` of the block, a multiple of 32, have come to the
/// barrier, 1 to 15 (0 is __syncthreads), by this or by named_barrier_arrive. Orders their memory.
__device__ inline void named_barrier_sync(unsigned barrier, unsigned threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
/// bar.arrive: is counted, and does not wait.
__device__ inline void named_barrier_arrive(unsigned barrier, unsigned threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

/// ldmatrix .m8n8 .b16 (9.7.14.5.15): kMatrices (1, 2, 4) of 8 rows of 16 bytes. Lane 8 j + r says
/// where row r of matrix j lies in shared memory, aligned to 16 bytes. fragments[j] becomes
/// (g, 2q) and (g, 2q + 1) of matrix j, the first in the low half.
template <int kMatrices>
__device__ void load_matrices(std::uint32_t (&fragments)[kMatrices], const void* row) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kMatrices == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(fragments[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragments[0]), "=r"(fragments[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(address)
                 : "memory");
  }
}
/// ldmatrix .trans: fragments[j] becomes (2q, g) and (2q + 1, g) of matrix j.
template <int kMatrices>
__device__ void load_matrices_transposed(std::uint32_t (&fragments)[kMatrices], const void* row) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kMatrices == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(fragments[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragments[0]), "=r"(fragments[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
                 : "r"(address)
                 : "memory");
  }
}

/// mma.m16n8k16 (9.7.14.5.8): d += a b, of bfloat16 in pairs. Element i of a, from 0 to 7, is
/// (g + 8 (i / 2 % 2), 2q + i % 2 + 8 (i / 4)); element i of b is (2q + i % 2 + 8 (i / 2), g).
__device__ inline void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// The same of float16.
__device__ inline void mma_m16n8k16_f16(float (&d)[4], const std::uint32_t (&a)[4],
                                        const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// cvt.rna.tf32.f32 (9.7.9.22): to the 11 bits that the mma reads, to the nearest, halves away from
/// zero.
__device__ inline std::uint32_t round_to_tf32(float x) {
  std::uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
  return rounded;
}
/// mma.m16n8k8 of tf32 (9.7.14.5.7): the low 13 bits of a float are ignored. Element i of a is
/// (g + 8 (i % 2), q + 4 (i / 2)); element i of b is (q + 4 i, g).
__device__ inline void mma_m16n8k8_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                        const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Whether what is compiled has the instructions of e4m3.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
#define SERRATE_HAS_E4M3 1
#else
#define SERRATE_HAS_E4M3 0
#endif

#if SERRATE_HAS_E4M3
/// mma.m16n8k32 of e4m3 (9.7.14.5.10), four in a register. Element i of a, from 0 to 15, is
/// (g + 8 (i / 4 % 2), 4q + i % 4 + 16 (i / 8)); element i of b is (4q + i % 4 + 16 (i / 4), g).
__device__ inline void mma_m16n8k32_e4m3(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// cvt.rn.satfinite.e4m3x2.f32 (9.7.9.22): to the nearest, at most 448. `low` is in the low byte.
__device__ inline std::uint16_t pack_e4m3(float low, float high) {
  std::uint16_t packed;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
  return packed;
}
/// The values of two e4m3, by cvt.rn.f16x2.e4m3x2, which is exact.
struct E4m3Pair {
  float low, high;
};
__device__ inline E4m3Pair unpack_e4m3(std::uint16_t packed) {
  E4m3Pair values;
  asm("{\n"
      ".reg .b32 halves;\n"
      ".reg .b16 low, high;\n"
      "cvt.rn.f16x2.e4m3x2 halves, %2;\n"
      "mov.b32 {low, high}, halves;\n"
      "cvt.f32.f16 %0, low;\n"
      "cvt.f32.f16 %1, high;\n"
      "}"
      : "=f"(values.low), "=f"(values.high)
      : "h"(packed));
  return values;
}
#endif

/// cp.async (9.7.9.25.3): 16 bytes from global to shared memory, both aligned to 16. The calling
/// thread sees them after copy_async_wait, others after a barrier behind that.
__device__ inline void copy_async(void* shared, const void* global) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}
/// What was copied since the last commit is a group, even if it is nothing.
__device__ inline void copy_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most the kPending youngest groups of the thread are under way.
template <int kPending>
__device__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace serrate
