#pragma once

#include <cstdint>

#include "kernels/attention/cuda/tile.cuh"
#include "src/core/launch.cuh"

namespace serrate {

/// Calls f(TileShape) with the one for rows of head_dim columns: what a block has of shared memory
/// and a thread of registers bounds tile * head_dim.
template <typename F>
void with_tile_shape(std::int64_t head_dim, F&& f) {
  if (head_dim <= 64) return f(TileShape<32, 64>());
  if (head_dim <= 128) return f(TileShape<32, 128>());
  f(TileShape<16, 256>());
}

inline std::int64_t attribute_of(const Stream& stream, cudaDeviceAttr attribute) {
  int value = 0;
  cuda_check(cudaDeviceGetAttribute(&value, attribute, stream.device().index));
  return value;
}
inline std::int64_t processors_of(const Stream& stream) {
  return attribute_of(stream, cudaDevAttrMultiProcessorCount);
}

/// What a block may have of static shared memory, beside the dynamic.
inline constexpr std::int64_t kStaticBytes = 3 << 10;
inline std::int64_t shared_bytes_of(const Stream& stream) {
  return attribute_of(stream, cudaDevAttrMaxSharedMemoryPerBlockOptin) - kStaticBytes;
}

/// A block of a kernel: its dynamic shared memory, and the most that the kernel has in any call.
struct BlockShape {
  int warps;
  std::int64_t bytes, most_bytes;
};

/// Launches a kernel whose blocks go through tasks by themselves: as many as the device may run at
/// a time, as how many tasks there are is known to the device alone. most_bytes has to be the same
/// in all calls of a kernel: the limit is the kernel's, whichever thread launches it.
template <typename... Parameters, typename... Arguments>
void launch_warps(void (*kernel)(Parameters...), const BlockShape& block, const Stream& stream,
                  Arguments&&... arguments) {
  constexpr unsigned kBlocksAProcessor = 8;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(block.most_bytes)));
  launch(kernel, kBlocksAProcessor * static_cast<unsigned>(processors_of(stream)),
         dim3(kThreadsX, 4 * static_cast<unsigned>(block.warps)),
         static_cast<std::size_t>(block.bytes), stream, std::forward<Arguments>(arguments)...);
}

/// The same with four warps and as much shared memory in all calls.
template <typename... Parameters, typename... Arguments>
void launch_tiles(void (*kernel)(Parameters...), std::int64_t shared_floats, const Stream& stream,
                  Arguments&&... arguments) {
  const std::int64_t bytes = shared_floats * static_cast<std::int64_t>(sizeof(float));
  launch_warps(kernel, {kWarps, bytes, bytes}, stream, std::forward<Arguments>(arguments)...);
}

}  // namespace serrate
