#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/attention/cuda/tile.cuh"
#include "serrate/error.h"
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

/// Calls f(head_dim, as a constant, a value of the type of the rows), of what tensor cores have up
/// to kMost.
template <int kMost, typename F>
void with_halves(const AttentionView& args, F&& f) {
  const auto with_type = [&](auto dim) {
    if (args.q.type == DataType::kFloat16) return f(dim, __half());
    f(dim, __nv_bfloat16());
  };
  if (args.head_dim == 32) with_type(std::integral_constant<int, 32>());
  if (args.head_dim == 64) with_type(std::integral_constant<int, 64>());
  if (args.head_dim == 128) with_type(std::integral_constant<int, 128>());
  if constexpr (kMost == 256) {
    if (args.head_dim == 256) with_type(std::integral_constant<int, 256>());
  }
}

/// Likewise, of all that tensor cores have, and for float32 rows of a tf32 call.
template <typename F>
void with_rows(const AttentionView& args, F&& f) {
  if (args.q.type != DataType::kFloat32) return with_halves<256>(args, f);
  if (args.head_dim == 32) return f(std::integral_constant<int, 32>(), float());
  if (args.head_dim == 64) return f(std::integral_constant<int, 64>(), float());
  if (args.head_dim == 128) return f(std::integral_constant<int, 128>(), float());
  check(args.head_dim == 256, "attention: no tf32 kernel has rows of this head_dim");
  f(std::integral_constant<int, 256>(), float());
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

/// So many pairs of a sequence and a head of keys keep the device busy.
inline std::int64_t many_pairs(const Stream& stream) {
  return 2 * processors_of(stream);
}

/// A block of a kernel: its dynamic shared memory, and the most that the kernel has in any call;
/// what the host knows of how many blocks there may be tasks for; how many blocks are a cluster.
struct BlockShape {
  int warps;
  std::int64_t bytes, most_bytes;
  std::int64_t most_tasks = std::numeric_limits<std::int64_t>::max();
  unsigned cluster_size = 1;
};

/// Blocks of a launch, whose number of tasks is known to the device alone: twice as many as there
/// is shared memory for at a time, so that the second half goes where a task ended early, and at
/// most kMost a multiprocessor.
inline std::int64_t blocks_of_launch(const BlockShape& block, const Stream& stream) {
  constexpr std::int64_t kMost = 8, kReserved = 1 << 10;  // bytes of a block that CUDA takes
  const std::int64_t of_processor = shared_bytes_of(stream) + kStaticBytes + kReserved;
  const std::int64_t at_a_time = of_processor / (block.bytes + kStaticBytes + kReserved);
  return std::clamp<std::int64_t>(
      block.most_tasks, 1,
      std::clamp<std::int64_t>(2 * at_a_time, 1, kMost) * processors_of(stream));
}

/// Launches a kernel whose blocks go through tasks by themselves. most_bytes has to be the same in
/// all calls of a kernel: the limit is the kernel's, whichever thread launches it.
template <typename... Parameters, typename... Arguments>
void launch_warps(void (*kernel)(Parameters...), const BlockShape& block, const Stream& stream,
                  Arguments&&... arguments) {
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(block.most_bytes)));
  const auto clusters = ceil_div(blocks_of_launch(block, stream), block.cluster_size);
  launch_clusters(block.cluster_size, kernel, static_cast<unsigned>(clusters) * block.cluster_size,
                  dim3(kThreadsX, 4 * static_cast<unsigned>(block.warps)),
                  static_cast<std::size_t>(block.bytes), stream,
                  std::forward<Arguments>(arguments)...);
}

/// The same with four warps and as much shared memory in all calls.
template <typename... Parameters, typename... Arguments>
void launch_tiles(void (*kernel)(Parameters...), std::int64_t shared_floats, const Stream& stream,
                  Arguments&&... arguments) {
  const std::int64_t bytes = shared_floats * static_cast<std::int64_t>(sizeof(float));
  launch_warps(kernel, {kWarps, bytes, bytes}, stream, std::forward<Arguments>(arguments)...);
}

}  // namespace serrate
