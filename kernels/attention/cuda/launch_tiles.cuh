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

/// Launches a kernel whose blocks go through tasks by themselves: as many as the device may run at
/// a time, as how many tasks there are is known to the device alone. A kernel has to have the same
/// shared_floats in all calls: the limit is the kernel's, whichever thread launches it.
template <typename... Parameters, typename... Arguments>
void launch_tiles(void (*kernel)(Parameters...), std::int64_t shared_floats, const Stream& stream,
                  Arguments&&... arguments) {
  constexpr unsigned kBlocksAProcessor = 8;
  const std::int64_t bytes = shared_floats * static_cast<std::int64_t>(sizeof(float));
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)));
  int processors = 0;
  cuda_check(
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, stream.device().index));
  launch(kernel, kBlocksAProcessor * static_cast<unsigned>(processors), dim3(kThreadsX, kThreadsY),
         static_cast<std::size_t>(bytes), stream, std::forward<Arguments>(arguments)...);
}

}  // namespace serrate
