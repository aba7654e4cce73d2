#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <memory>

#include "src/core/cuda_check.h"

namespace serrate {

/// A tensor in device memory, and the box of it that a bulk copy moves
/// (kernels/cuda/bulk_copy.cuh). Dimensions go from the innermost outwards.
template <int kRank>
struct TensorMapArgs {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  const void* data = nullptr;                         // aligned to 16 bytes
  std::array<std::uint64_t, kRank> sizes = {};        // in elements, from 1 to 2^32
  std::array<std::uint64_t, kRank - 1> strides = {};  // in bytes, of all but the innermost: of 16
  std::array<std::uint32_t, kRank> box = {};          // in elements, from 1 to 256
  // Over so many bytes of shared memory, and then the box is not wider. As the layout that wgmma
  // reads.
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;
  // A box of n elements a stride of s apart has the size n s in that dimension. Not the innermost.
  std::array<std::uint32_t, kRank> element_strides = [] {
    std::array<std::uint32_t, kRank> ones;
    ones.fill(1);
    return ones;
  }();
};

/// cuTensorMapEncodeTiled: a function of the driver, which the program is not linked with.
inline decltype(&cuTensorMapEncodeTiled) encode_tiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                              cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess) {
    fail_check("CUDA: the driver has no tensor maps: it is older than CUDA 12",
               std::source_location::current());
  }
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
}

/// What a kernel takes as a `const __grid_constant__` parameter. Elements outside the tensor are
/// read as zero.
template <int kRank>
CUtensorMap make_tensor_map(const TensorMapArgs<kRank>& args) {
  static_assert(2 <= kRank && kRank <= 5);
  static const auto encode = encode_tiled();
  // On the heap, for its alignment: GCC 12 does not align every local variable to 128 bytes.
  const auto map = std::make_unique<CUtensorMap>();
  const CUresult result =
      encode(map.get(), args.type, kRank, const_cast<void*>(args.data), args.sizes.data(),
             args.strides.data(), args.box.data(), args.element_strides.data(),
             CU_TENSOR_MAP_INTERLEAVE_NONE, args.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    fail_check("CUDA: cuTensorMapEncodeTiled: error " + std::to_string(result) +
                   ": an address, a stride or a box that bulk copies cannot take",
               std::source_location::current());
  }
  return *map;
}

}  // namespace serrate
