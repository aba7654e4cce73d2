#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/mbarrier.cuh"

// How wgmma finds its operands; the same on the simulated device.
namespace serrate {

enum class WgmmaType { kBf16, kF16, kTf32, kE4m3 };

/// Elements that one product sums over: 32 bytes of each operand.
constexpr int wgmma_depth(WgmmaType type) {
  return type == WgmmaType::kTf32 ? 8 : type == WgmmaType::kE4m3 ? 32 : 16;
}

/// Which elements of an operand in shared memory lie together: those of one row of a (column of b),
/// or those of one k, which only elements of 16 bits may.
enum class WgmmaMajor { kDepth, kRows };

/// How a tile lies in shared memory: as the swizzles of bulk copies, under other numbers.
enum class WgmmaSwizzle : std::uint64_t { kNone = 0, k128Bytes = 1, k64Bytes = 2, k32Bytes = 3 };

/// Distances in shared memory, in bytes, between groups of 8 rows (9.7.15.5.1). Swizzled over w
/// bytes and kDepth: `stride` from 8 rows to the next 8 (8 w when dense), `leading` is not used.
/// Swizzled and kRows: `stride` from 8 k to the next 8, `leading` from w bytes of rows to the next.
/// Not swizzled, where 8 rows of 16 bytes lie together: kDepth: `stride` from 8 rows to the next,
/// `leading` from 16 bytes of k to the next; kRows: `stride` from 16 bytes of rows to the next,
/// `leading` from 8 k to the next.
struct WgmmaTile {
  std::uint32_t leading = 0, stride = 0;
  WgmmaSwizzle swizzle = WgmmaSwizzle::kNone;
};

/// The matrix descriptor (9.7.15.5.1.2.2) of a tile that begins at an address in shared memory:
/// tiles that are swizzled over w bytes are aligned to 8 w. The next `depth` of a tile that is
/// kDepth and swizzled begins 32 bytes further on.
__device__ inline std::uint64_t wgmma_descriptor(const void* shared, const WgmmaTile& tile) {
  const auto field = [](std::uint32_t bytes) {
    return static_cast<std::uint64_t>((bytes & 0x3FFFF) >> 4);
  };
  return field(shared_address(shared)) | field(tile.leading) << 16 | field(tile.stride) << 32 |
         static_cast<std::uint64_t>(tile.swizzle) << 62;
}

/// What becomes of d.
enum class WgmmaScale { kOverwrite, kAdd };

}  // namespace serrate
