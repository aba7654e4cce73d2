#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/wgmma_descriptor.cuh"
#include "kernels/cuda/wgmma_operands.cuh"

// Matrix products of a warpgroup, four warps the first of which has a number that is a multiple of
// four (PTX ISA 9.1, 9.7.15): sm_90a alone. tests/support/simt has a header of the same path for
// the simulated device.
//
// A product runs beside the warpgroup that issues it. The order of things:
//   write shared memory, fence_async_proxy_shared(), barrier (none of it for what copies brought);
//   wgmma_fence() behind the last access to d and to a in registers;
//   wgmma(...), several of which may add to the same d;
//   wgmma_commit(); wgmma_wait<0>(): now d may be read, and operands may be overwritten.
//
// Thread t of the warpgroup has w = t / 32, g = t % 32 / 4, q = t % 4. Its accumulator r is in row
// 16 w + g + 8 (r / 2 % 2) and column 8 (r / 4) + 2 q + r % 2. Operand a in registers is, for each
// warp, the fragment of mma with the same depth (kernels/cuda/primitives.cuh) of its 16 rows.
namespace serrate {

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

/// wgmma.fence: behind it products may use registers that the thread accessed before.
__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/// wgmma.commit_group: the products since the last commit are a group.
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// wgmma.wait_group: waits until at most the kPending youngest groups are under way.
template <int kPending>
__device__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
/// Keeps the compiler from moving accesses to registers past this point: on both sides of products,
/// for d.
template <int kCount>
__device__ void wgmma_keep(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define SERRATE_WGMMA_BEGIN(scale) "{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #scale ", 0;\n"
// Operands in shared memory, of 16 bits: a, b, adds, how a and b lie.
#define SERRATE_WGMMA_SS16(n, type, p0, p1, p2, p3, p4, p5, p6)                                    \
  if constexpr (kCols == n) {                                                                      \
    asm volatile(SERRATE_WGMMA_BEGIN(p2) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type    \
                                         "." type " {" SERRATE_WGMMA_REGISTERS_##n                 \
                 "}, %" #p0 ", %" #p1 ", adds, 1, 1, %" #p3 ", %" #p4 ";\n}"                       \
                 : SERRATE_WGMMA_OPERANDS_##n                                                      \
                 : "l"(a), "l"(b), "r"(static_cast<int>(adds)), "n"(kTransposeA), "n"(kTransposeB) \
                 : "memory");                                                                      \
  }
// The operands behind them: a, b, adds.
#define SERRATE_WGMMA_SS(n, type, p0, p1, p2, p3, p4, p5, p6)                                  \
  if constexpr (kCols == n) {                                                                  \
    asm volatile(SERRATE_WGMMA_BEGIN(p2) "wgmma.mma_async.sync.aligned.m64n" #n type           \
                                         " {" SERRATE_WGMMA_REGISTERS_##n "}, %" #p0 ", %" #p1 \
                                                                          ", adds, 1, 1;\n}"   \
                 : SERRATE_WGMMA_OPERANDS_##n                                                  \
                 : "l"(a), "l"(b), "r"(static_cast<int>(adds))                                 \
                 : "memory");                                                                  \
  }
// a in registers, of 16 bits: a, b, adds, how b lies.
#define SERRATE_WGMMA_RS16(n, type, p0, p1, p2, p3, p4, p5, p6)                                    \
  if constexpr (kCols == n) {                                                                      \
    asm volatile(SERRATE_WGMMA_BEGIN(p5) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type    \
                                         "." type " {" SERRATE_WGMMA_REGISTERS_##n                 \
                 "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", adds, 1, 1, %" #p6 ";\n}" \
                 : SERRATE_WGMMA_OPERANDS_##n                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                             \
                   "r"(static_cast<int>(adds)), "n"(kTransposeB)                                   \
                 : "memory");                                                                      \
  }
#define SERRATE_WGMMA_RS(n, type, p0, p1, p2, p3, p4, p5, p6)                                      \
  if constexpr (kCols == n) {                                                                      \
    asm volatile(SERRATE_WGMMA_BEGIN(p5) "wgmma.mma_async.sync.aligned.m64n" #n type               \
                                         " {" SERRATE_WGMMA_REGISTERS_##n                          \
                 "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", adds, 1, 1;\n}"           \
                 : SERRATE_WGMMA_OPERANDS_##n                                                      \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)) \
                 : "memory");                                                                      \
  }

/// wgmma.mma_async (9.7.15.5.2): d = a b or d += a b; a is 64 x depth and b depth x kCols, both by
/// descriptors.
template <WgmmaType kType, int kCols, WgmmaMajor kA = WgmmaMajor::kDepth,
          WgmmaMajor kB = WgmmaMajor::kDepth>
__device__ void wgmma(float (&d)[kCols / 2], std::uint64_t a, std::uint64_t b, WgmmaScale scale) {
  static_assert(kCols % 8 == 0 && 8 <= kCols && kCols <= 256);
  constexpr int kTransposeA = kA == WgmmaMajor::kRows, kTransposeB = kB == WgmmaMajor::kRows;
  const bool adds = scale == WgmmaScale::kAdd;
  if constexpr (kType == WgmmaType::kBf16) {
    SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_SS16, "bf16")
  } else if constexpr (kType == WgmmaType::kF16) {
    SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_SS16, "f16")
  } else {
    static_assert(!kTransposeA && !kTransposeB, "only elements of 16 bits may lie by rows");
    if constexpr (kType == WgmmaType::kTf32) {
      SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_SS, "k8.f32.tf32.tf32")
    } else {
      SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_SS, "k32.f32.e4m3.e4m3")
    }
  }
}

/// The same with a in registers, which may not change before the product is waited for.
template <WgmmaType kType, int kCols, WgmmaMajor kB = WgmmaMajor::kDepth>
__device__ void wgmma(float (&d)[kCols / 2], const std::uint32_t (&a)[4], std::uint64_t b,
                      WgmmaScale scale) {
  static_assert(kCols % 8 == 0 && 8 <= kCols && kCols <= 256);
  constexpr int kTransposeB = kB == WgmmaMajor::kRows;
  const bool adds = scale == WgmmaScale::kAdd;
  if constexpr (kType == WgmmaType::kBf16) {
    SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_RS16, "bf16")
  } else if constexpr (kType == WgmmaType::kF16) {
    SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_RS16, "f16")
  } else {
    static_assert(!kTransposeB, "only elements of 16 bits may lie by rows");
    if constexpr (kType == WgmmaType::kTf32) {
      SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_RS, "k8.f32.tf32.tf32")
    } else {
      SERRATE_WGMMA_SHAPES(SERRATE_WGMMA_RS, "k32.f32.e4m3.e4m3")
    }
  }
}

#undef SERRATE_WGMMA_RS
#undef SERRATE_WGMMA_RS16
#undef SERRATE_WGMMA_SS
#undef SERRATE_WGMMA_SS16
#undef SERRATE_WGMMA_BEGIN

#endif

}  // namespace serrate
