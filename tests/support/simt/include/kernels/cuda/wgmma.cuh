#pragma once

// The simulated device's form of kernels/cuda/wgmma.cuh, which says what they do.
#include "kernels/cuda/wgmma_descriptor.cuh"
#include "tests/support/simt/wgmma.h"

namespace serrate {

#define SIMT_HERE simt::Where where = simt::Where::current()

__forceinline__ void wgmma_fence(SIMT_HERE) {
  simt::fence_products(where);
}
__forceinline__ void wgmma_commit(SIMT_HERE) {
  simt::commit_products(where);
}
template <int kPending>
__forceinline__ void wgmma_wait(SIMT_HERE) {
  simt::wait_for_products(kPending, where);
}
template <int kCount>
__forceinline__ void wgmma_keep(float (&)[kCount]) {}

constexpr simt::MmaType simt_type(WgmmaType type) {
  return type == WgmmaType::kBf16   ? simt::MmaType::kBf16
         : type == WgmmaType::kF16  ? simt::MmaType::kF16
         : type == WgmmaType::kTf32 ? simt::MmaType::kTf32
                                    : simt::MmaType::kE4m3;
}

template <WgmmaType kType, int kCols, WgmmaMajor kA = WgmmaMajor::kDepth,
          WgmmaMajor kB = WgmmaMajor::kDepth>
__forceinline__ void wgmma(float (&d)[kCols / 2], std::uint64_t a, std::uint64_t b,
                           WgmmaScale scale, SIMT_HERE) {
  static_assert(kCols % 8 == 0 && 8 <= kCols && kCols <= 256);
  static_assert(wgmma_depth(kType) == 16 || (kA == WgmmaMajor::kDepth && kB == WgmmaMajor::kDepth));
  simt::issue_product({.type = simt_type(kType),
                       .cols = kCols,
                       .a_by_rows = kA == WgmmaMajor::kRows,
                       .b_by_rows = kB == WgmmaMajor::kRows,
                       .adds = scale == WgmmaScale::kAdd,
                       .a = a,
                       .b = b},
                      d, nullptr, where);
}
template <WgmmaType kType, int kCols, WgmmaMajor kB = WgmmaMajor::kDepth>
__forceinline__ void wgmma(float (&d)[kCols / 2], const std::uint32_t (&a)[4], std::uint64_t b,
                           WgmmaScale scale, SIMT_HERE) {
  static_assert(kCols % 8 == 0 && 8 <= kCols && kCols <= 256);
  static_assert(wgmma_depth(kType) == 16 || kB == WgmmaMajor::kDepth);
  simt::issue_product({.type = simt_type(kType),
                       .cols = kCols,
                       .b_by_rows = kB == WgmmaMajor::kRows,
                       .adds = scale == WgmmaScale::kAdd,
                       .b = b},
                      d, a, where);
}

#undef SIMT_HERE

}  // namespace serrate
